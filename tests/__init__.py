"""The project's own tests; a package so that its helper modules can be imported."""
