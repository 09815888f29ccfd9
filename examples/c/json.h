/* A JSON reader: as much of JSON as the manifest and a safetensors header use. Strings have no
   escapes, numbers are double. What it cannot read ends the program. */

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static _Noreturn void die(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "rope: ");
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    exit(2);
}

static void *grown(void *memory, size_t bytes) {
    memory = realloc(memory, bytes ? bytes : 1);
    if (!memory) die("out of memory");
    return memory;
}

typedef struct Value {
    enum { NOTHING, BOOLEAN, NUMBER, STRING, ARRAY, OBJECT } kind;
    double number;
    char *text;
    char **keys;
    struct Value *items;
    int count;
} Value;

static const char *at;

static char next_mark(void) {
    while (*at == ' ' || *at == '\n' || *at == '\t' || *at == '\r') at++;
    return *at;
}

static void expect(char mark) {
    if (next_mark() != mark) die("JSON: expected '%c' at %.20s", mark, at);
    at++;
}

static char *read_string(void) {
    expect('"');
    size_t length = 0;
    for (const char *c = at; *c != '"'; c++, length++)
        if (*c == '\\' || !*c) die("JSON: escapes are not read here: %.20s", at);
    char *text = grown(NULL, length + 1);
    memcpy(text, at, length);
    text[length] = 0;
    at += length + 1;
    return text;
}

static Value read_value(void) {
    Value value = {0};
    char mark = next_mark();
    if (mark == '"') {
        value.kind = STRING;
        value.text = read_string();
    } else if (mark == '[' || mark == '{') {
        char end = mark == '[' ? ']' : '}';
        value.kind = mark == '[' ? ARRAY : OBJECT;
        for (at++; next_mark() != end; value.count++) {
            if (value.count) expect(',');
            if (!(value.count & (value.count + 1))) { /* room for twice as many */
                size_t room = 2 * (size_t)value.count + 2;
                value.items = grown(value.items, room * sizeof *value.items);
                value.keys = grown(value.keys, room * sizeof *value.keys);
            }
            value.keys[value.count] = mark == '{' ? read_string() : NULL;
            if (mark == '{') expect(':');
            Value item = read_value();
            value.items[value.count] = item;
        }
        at++;
    } else if (!strncmp(at, "null", 4)) {
        at += 4;
    } else if (!strncmp(at, "true", 4) || !strncmp(at, "false", 5)) {
        value.kind = BOOLEAN;
        value.number = mark == 't';
        at += mark == 't' ? 4 : 5;
    } else {
        char *end;
        value.kind = NUMBER;
        value.number = strtod(at, &end);
        if (end == at) die("JSON: what is %.20s?", at);
        at = end;
    }
    return value;
}

static const Value *find(const Value *object, const char *key) {
    for (int i = 0; i < object->count; i++)
        if (object->keys[i] && !strcmp(object->keys[i], key)) return &object->items[i];
    return NULL;
}

static const Value *get(const Value *object, const char *key) {
    const Value *value = find(object, key);
    if (!value) die("%s is missing", key);
    return value;
}

static int is(const Value *object, const char *key, const char *text) {
    const Value *value = get(object, key);
    return value->kind == STRING && !strcmp(value->text, text);
}

static int integer(const Value *object, const char *key) { return (int)get(object, key)->number; }
