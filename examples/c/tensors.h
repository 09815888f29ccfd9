/* Tensors of vectors.safetensors by name, results.safetensors, and floating point of 16 bits. */

#include <math.h>
#include <stdint.h>

#include "json.h"

static char *read_file(const char *folder, const char *name, size_t *size) {
    char path[4096];
    if (snprintf(path, sizeof path, "%s/%s", folder, name) >= (int)sizeof path) die("path too long");
    FILE *file = fopen(path, "rb");
    if (!file || fseek(file, 0, SEEK_END)) die("cannot open %s", path);
    *size = (size_t)ftell(file);
    rewind(file);
    char *content = grown(NULL, *size + 1);
    if (fread(content, 1, *size, file) != *size) die("cannot read %s", path);
    content[*size] = 0;
    fclose(file);
    return content;
}

typedef struct {
    const Value *shape;
    const char *data;
} Tensor;

static Value header;
static const char *tensors;

static Tensor tensor(const char *id, const char *name, const char *dtype) {
    char full[256];
    snprintf(full, sizeof full, "%s/%s%s", id, name, dtype);
    const Value *entry = get(&header, full);
    return (Tensor){get(entry, "shape"),
                    tensors + (size_t)get(entry, "data_offsets")->items[0].number};
}

static FILE *out_data;
static char *out_header;
static size_t out_length, out_offset;

static void write_tensor(const char *id, const char *name, const char *suffix, const char *dtype,
                         const Value *shape, int last, const void *data, size_t bytes) {
    out_header = grown(out_header, out_length + 1024);
    char *to = out_header + out_length;
    to += sprintf(to, "%c\"%s/%s%s\":{\"dtype\":\"%s\",\"shape\":[", out_length ? ',' : '{', id,
                  name, suffix, dtype);
    for (int i = 0; i < shape->count; i++) /* and one of `last`, unless 0 */
        to += sprintf(to, "%s%d", i ? "," : "", (int)shape->items[i].number);
    if (last) to += sprintf(to, "%s%d", shape->count ? "," : "", last);
    to += sprintf(to, "],\"data_offsets\":[%zu,%zu]}", out_offset, out_offset + bytes);
    out_length = (size_t)(to - out_header);
    out_offset += bytes;
    if (fwrite(data, 1, bytes, out_data) != bytes) die("cannot write");
}

static void open_tensors(const char *folder) {
    size_t size;
    char *file = read_file(folder, "vectors.safetensors", &size);
    uint64_t length;
    memcpy(&length, file, 8);
    tensors = file + 8 + length;
    at = file + 8;
    header = read_value();
    if (!(out_data = tmpfile())) die("cannot make a temporary file");
}

static void finish(const char *folder) {
    char path[4096];
    snprintf(path, sizeof path, "%s/results.safetensors", folder);
    FILE *results = fopen(path, "wb");
    if (!results) die("cannot write %s", path);
    uint64_t length;
    out_header[out_length++] = '}';
    while (out_length % 8) out_header[out_length++] = ' ';
    length = out_length;
    fwrite(&length, 8, 1, results);
    fwrite(out_header, 1, out_length, results);
    rewind(out_data);
    for (int c; (c = getc(out_data)) != EOF;) putc(c, results);
    if (ferror(results) || fclose(results)) die("cannot write %s", path);
}

/* Numbers of 16 bits, rounded to nearest, ties to even ------------------------------------------ */

static double load(const char *data, size_t i, const char *dtype) {
    uint16_t half;
    float value;
    if (!strcmp(dtype, "float32")) {
        memcpy(&value, data + 4 * i, 4);
        return value;
    }
    memcpy(&half, data + 2 * i, 2);
    if (!strcmp(dtype, "bfloat16")) {
        uint32_t bits = (uint32_t)half << 16;
        memcpy(&value, &bits, 4);
        return value;
    }
    int exponent = half >> 10 & 31, fraction = half & 1023;
    double size = exponent == 31 ? (fraction ? NAN : INFINITY)
                : exponent       ? ldexp(1024 + fraction, exponent - 25)
                                 : ldexp(fraction, -24);
    return half & 0x8000 ? -size : size;
}

static void store(char *data, size_t i, const char *dtype, double y) {
    float value = (float)y;
    uint16_t half;
    if (!strcmp(dtype, "float32")) {
        memcpy(data + 4 * i, &value, 4);
        return;
    }
    int exponent, narrow = !strcmp(dtype, "float16");
    frexp(y, &exponent);
    int unit = narrow ? (exponent > -13 ? exponent - 11 : -24) : exponent - 8;
    double rounded = ldexp(nearbyint(ldexp(y, -unit)), unit);
    if (!narrow) {
        value = (float)rounded; /* exact: 8 of 24 bits */
        uint32_t bits;
        memcpy(&bits, &value, 4);
        half = (uint16_t)(bits >> 16);
    } else {
        double size = fabs(rounded);
        half = signbit(y) ? 0x8000 : 0;
        if (size >= 65536) half |= 31 << 10;
        else if (size < 0x1p-14) half |= (uint16_t)ldexp(size, 24);
        else {
            frexp(size, &exponent); /* rounding may have raised it */
            half |= (uint16_t)((exponent + 14) << 10 | ((int)ldexp(size, 11 - exponent) & 1023));
        }
    }
    memcpy(data + 2 * i, &half, 2);
}
