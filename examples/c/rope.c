/* Rotary position embedding in C11, from SPEC.md and the exported golden vectors alone.

   Reads DIR/manifest.json and DIR/vectors.safetensors, computes every output, and writes
   DIR/results.safetensors for `rotary-spec vectors verify DIR`. Little-endian machines only.

       cc -std=c11 -O2 -o rope rope.c -lm && ./rope DIR */

#include <float.h>

#include "tensors.h"

static const double RADIANS = 6.283185307179586 * 0x1p-64; /* one unit of a phase */

typedef struct {
    int lane[2], to[2]; /* read from, written to */
    int axis;           /* of the positions */
    int index, width;   /* its frequency is theta_index over so many lanes */
} Pair;

static void place(const Value *spec, const char *key, int block, int rank, int half, int lane[2]) {
    if (get(spec, key)->kind == NOTHING) key = "layout";
    int neighbours = is(spec, key, "interleaved");
    lane[0] = block + (neighbours ? 2 * rank : rank);
    lane[1] = lane[0] + (neighbours ? 1 : half);
}

static int axis_of(const Value *sections, int pair) {
    const Value *sizes = get(sections, "sizes");
    int n = sizes->count, before = 0;
    if (is(sections, "order", "interleaved"))
        return pair < n * (int)sizes->items[pair % n].number ? pair % n : 0;
    if (is(sections, "order", "spatial_first")) {
        int others = n > 1 ? (n - 1) * (int)sizes->items[1].number : 0;
        return pair < others ? 1 + pair % (n - 1) : 0;
    }
    for (int axis = 0; axis < n; axis++)
        if (pair < (before += (int)sizes->items[axis].number)) return axis;
    die("sections hold fewer pairs than rotary_dim / 2");
}

static Pair *pairs_of(const Value *spec, int count) {
    const Value *sections = get(spec, "sections");
    int start = integer(spec, "rotary_start"), seen[16] = {0};
    Pair *pairs = grown(NULL, (size_t)count * sizeof *pairs);
    for (int i = 0; i < count; i++) {
        Pair *p = &pairs[i];
        int block = start, rank = i, half = count;
        *p = (Pair){.index = i, .width = 2 * count};
        if (sections->kind == OBJECT) {
            const Value *sizes = get(sections, "sizes");
            if (sizes->count > 16) die("more than 16 axes");
            p->axis = axis_of(sections, i);
            int j = seen[p->axis]++, size = (int)sizes->items[p->axis].number;
            if (is(sections, "pairing", "within")) block += 2 * (i - j), rank = j, half = size;
            if (is(sections, "frequencies", "restart")) p->index = j, p->width = 2 * size;
            if (is(sections, "frequencies", "strided")) p->index = sizes->count * j + p->axis;
        }
        place(spec, "layout", block, rank, half, p->lane);
        place(spec, "output_layout", block, rank, half, p->to);
    }
    return pairs;
}

/* The index into an array of `shape`, without `skipped` axes, for a row of an array of `rows`. */
static size_t broadcast(const Value *shape, int skipped, const Value *rows, size_t row) {
    size_t index = 0, stride = 1;
    for (int back = 1; back < rows->count; back++) {
        size_t extent = (size_t)rows->items[rows->count - 1 - back].number, here = row % extent;
        row /= extent;
        if (shape->count - back < skipped) break;
        size_t size = (size_t)shape->items[shape->count - back].number;
        if (size > 1) index += stride * here;
        stride *= size;
    }
    return index;
}

static size_t product(const Value *shape, int from, int to) {
    size_t size = 1;
    for (int i = from; i < to; i++) size *= (size_t)shape->items[i].number;
    return size;
}

static void rotate(const char *id, const char *from, const char *to, const char *dtype,
                   const Value *shape, int skipped, const Pair *pairs, int count, const double *cosine,
                   const double *sine) {
    int back = from[0] == 'g'; /* the transposed rotation: from output lanes to input lanes */
    Tensor x = tensor(id, from, dtype);
    int head_dim = (int)x.shape->items[x.shape->count - 1].number;
    size_t item = strcmp(dtype, "float32") ? 2 : 4;
    size_t rows = product(x.shape, 0, x.shape->count - 1), bytes = rows * (size_t)head_dim * item;
    char *y = grown(NULL, bytes);
    memcpy(y, x.data, bytes); /* lanes that are not rotated stay as they are */
    for (size_t row = 0; row < rows; row++) {
        size_t first = row * (size_t)head_dim, position = broadcast(shape, skipped, x.shape, row);
        for (int i = 0; i < count; i++) {
            const int *in = back ? pairs[i].to : pairs[i].lane;
            const int *out = back ? pairs[i].lane : pairs[i].to;
            double c = cosine[position * (size_t)count + (size_t)i];
            double s = sine[position * (size_t)count + (size_t)i] * (back ? -1 : 1);
            double a = load(x.data, first + (size_t)in[0], dtype);
            double b = load(x.data, first + (size_t)in[1], dtype);
            store(y, first + (size_t)out[0], dtype, a * c - b * s);
            store(y, first + (size_t)out[1], dtype, b * c + a * s);
        }
    }
    const char *code = item == 4 ? "F32" : dtype[0] == 'b' ? "BF16" : "F16";
    write_tensor(id, to, dtype, code, x.shape, 0, y, bytes);
    free(y);
}

/* F = theta / 2 pi * 2^64 from base and factor, where long double has 64 bits or more. */
static void compare_turns(const Value *spec, const Pair *pairs, int count, const uint64_t *turns,
                          int result[3]) {
    const Value *schedule = get(spec, "schedule"), *factor = find(schedule, "factor");
    if (!is(schedule, "rope_type", "default") && !is(schedule, "rope_type", "linear")) return;
    for (int i = 0; LDBL_MANT_DIG >= 64 && i < count; i++) {
        long double theta = powl(get(spec, "base")->number, -2.0L * pairs[i].index / pairs[i].width);
        if (factor) theta /= factor->number;
        uint64_t mine = (uint64_t)nearbyintl(theta * 2935890503282001226.4962438L); /* 2^64 / 2 pi */
        uint64_t apart = mine > turns[i] ? mine - turns[i] : turns[i] - mine;
        result[0]++;
        result[1] += !apart;
        if (apart > (uint64_t)result[2]) result[2] = (int)apart;
    }
}

static void run_case(const Value *entry, int counts[3]) {
    static const char *const dtypes[] = {"float32", "float16", "bfloat16"};
    const char *id = get(entry, "id")->text;
    const Value *spec = get(entry, "spec");
    int count = integer(spec, "rotary_dim") / 2, skipped = get(spec, "sections")->kind == OBJECT;
    double magnitude = get(entry, "attention_factor")->number;
    double sign = get(spec, "inverse")->number ? -1 : 1;
    Pair *pairs = pairs_of(spec, count);
    Tensor positions = tensor(id, "positions", "");
    const Value *shape = positions.shape;
    uint64_t *turns = grown(NULL, (size_t)count * sizeof *turns);
    memcpy(turns, tensor(id, "turns", "").data, (size_t)count * sizeof *turns);
    const char *inv_freq = tensor(id, "inv_freq", "").data;
    char name[256];
    snprintf(name, sizeof name, "%s/positions", id);
    int coordinates = is(get(&header, name), "dtype", "F64");
    size_t places = product(shape, skipped, shape->count), size = places * (size_t)count;
    uint64_t *phases = grown(NULL, size * sizeof *phases);
    double *cosine = grown(NULL, size * sizeof *cosine), *sine = grown(NULL, size * sizeof *sine);
    for (size_t k = 0; k < size; k++) {
        size_t i = k % (size_t)count, from = (size_t)pairs[i].axis * places + k / (size_t)count;
        int64_t m;
        double fraction = 0, theta;
        memcpy(&theta, inv_freq + 8 * i, 8);
        if (coordinates) {
            double coordinate;
            memcpy(&coordinate, positions.data + 8 * from, 8);
            m = (int64_t)floor(coordinate);
            fraction = coordinate - floor(coordinate);
        } else {
            memcpy(&m, positions.data + 8 * from, 8);
        }
        phases[k] = (uint64_t)m * turns[i]; /* wraps: 2^64 is one turn */
        double angle = (double)(int64_t)phases[k] * RADIANS + fraction * theta;
        cosine[k] = magnitude * cos(angle);
        sine[k] = sign * magnitude * sin(angle);
    }
    Value table = *shape; /* the positions' shape without the axes, and the pairs */
    table.items += skipped;
    table.count -= skipped;
    if (!coordinates) write_tensor(id, "phases", "", "U64", &table, count, phases, 8 * size);
    write_tensor(id, "cos", "", "F64", &table, count, cosine, 8 * size);
    write_tensor(id, "sin", "", "F64", &table, count, sine, 8 * size);
    for (int d = 0; d < 3; d++) {
        rotate(id, "x_", "y_", dtypes[d], shape, skipped, pairs, count, cosine, sine);
        rotate(id, "g_", "dx_", dtypes[d], shape, skipped, pairs, count, cosine, sine);
    }
    compare_turns(spec, pairs, count, turns, counts);
    free(pairs), free(turns), free(phases), free(cosine), free(sine);
}

int main(int argc, char **argv) {
    if (argc != 2) die("usage: rope DIR, where DIR was written by `rotary-spec vectors export DIR`");
    size_t size;
    at = read_file(argv[1], "manifest.json", &size);
    Value manifest = read_value();
    open_tensors(argv[1]);
    const Value *cases = get(&manifest, "cases");
    int counts[3] = {0};
    for (int i = 0; i < cases->count; i++) run_case(&cases->items[i], counts);
    finish(argv[1]);
    printf("%d cases; of %d turns computed here from base and factor, %d are equal and the others "
           "off by at most %d\n", cases->count, counts[0], counts[1], counts[2]);
    return 0;
}
