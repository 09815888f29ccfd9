"""What the commands of ``rotary-spec`` do that check, identify, compare and survey.

The command names, options and help are in `rotary_spec.cli`.
"""
