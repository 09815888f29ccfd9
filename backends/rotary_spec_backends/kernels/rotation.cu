// The rotation as a CUDA kernel: rows of up to two arrays, by positions they share.
//
// A thread holds the cos and sin of WIDTH pairs of one token in registers and goes through a chunk
// of the rows that stand at that token: heads, and where the whole batch shares its positions, batch
// entries too. The exact phases so cost nothing next to the memory traffic, and no table is read.
//
// Compiled for every dtype, layout and width, by these macros:
//   ELEMENT_{FLOAT32,FLOAT16,BFLOAT16}, POSITION (int or long long), WIDTH (elements in one access),
//   START, PAIRS, HEAD_DIM, INTERLEAVED, OUTPUT_INTERLEAVED, COPY (whether to copy the other lanes),
//   TOKENS (of one block of threads), UNROLL (rows whose loads are under way at the same time).
// The tests compile it as C++ too, with DEVICE, KERNEL and the conversions of their own.

#ifndef DEVICE
#define DEVICE static __device__ __forceinline__
#define KERNEL extern "C" __global__

#if defined(ELEMENT_FLOAT32)
typedef float Element;
DEVICE float to_float(Element x) { return x; }
DEVICE Element from_float(float x) { return x; }
#elif defined(ELEMENT_FLOAT16)
typedef unsigned short Element;
DEVICE float to_float(Element x) {
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x));
    return y;
}
DEVICE Element from_float(float x) {
    Element y;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y) : "f"(x));
    return y;
}
#elif defined(ELEMENT_BFLOAT16)
typedef unsigned short Element;
DEVICE float to_float(Element x) { return __uint_as_float((unsigned)x << 16); }
DEVICE Element from_float(float x) {
    Element y;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y) : "f"(x));
    return y;
}
#endif
#endif

// Cosine and sine of a phase in units of 2^-64 turn, within 1 ulp (2^-24).
//
// The quadrant comes from the top bits. Of the rest, at most an eighth of a turn, the leading 15 bits
// times a constant of 9 bits is exact in float32, so that the angle is known to about 48 bits, as
// angle + rest, whether or not the compiler contracts products and sums.
DEVICE void cos_sin(unsigned long long phase, float &cos, float &sin) {
    const float head = 402 * 0x1p-23f;  // 2 pi / 2^17 in two pieces: 9 leading bits, and the rest
    const float tail = (float)(0x1.921fb54442d18p+2 * 0x1p-17 - 402 * 0x1p-23);
    const float unit = (float)(0x1.921fb54442d18p+2 * 0x1p-48);
    const int high = (int)(phase >> 32);
    const float coarse = (float)((int)((unsigned)high << 2) >> 17);  // without the quadrant's bits
    const float fine = (float)((int)(phase >> 16) & 0x7fffffff);
    const float leading = coarse * head;
    const float trailing = coarse * tail + fine * unit;
    const float angle = leading + trailing;
    const float rest = trailing - (angle - leading);

    const float square = angle * angle;
    // Minimax on |angle| <= pi/4: 0.06 and 0.002 of 2^-24.
    const float odd = -1.66666549416e-1f + square * (8.33217800591e-3f + square * -1.95172793656e-4f);
    const float even = 4.16666468628e-2f + square * (-1.38873673309e-3f + square * 2.44384295864e-5f);
    const float half = 0.5f * square;
    const float s = angle + (angle * (square * odd) + (rest - rest * half));
    const float whole = 1.0f - half;
    const float c = whole + (((1.0f - whole) - half) + (square * (square * even) - angle * rest));

    const int quadrant = ((high >> 29) + 1) >> 1;
    const float new_cos = quadrant & 1 ? s : c, new_sin = quadrant & 1 ? c : s;
    cos = (quadrant + 1) & 2 ? -new_cos : new_cos;
    sin = quadrant & 2 ? -new_sin : new_sin;
}

struct alignas(WIDTH * sizeof(Element)) Pack {
    Element lane[WIDTH];
};

DEVICE Pack load(const Element *x) { return *reinterpret_cast<const Pack *>(x); }

// By words where there are any: the compiler tears stores of 16-bit lanes apart.
template <int words>
struct Store {
    struct alignas(4 * words) Words {
        unsigned word[words];
    };
    DEVICE void to(Element *y, const Pack &pack) {
        Words all;
        memcpy(&all, &pack, sizeof(all));
        *reinterpret_cast<Words *>(y) = all;
    }
};
template <>
struct Store<0> {
    DEVICE void to(Element *y, const Pack &pack) { *y = pack.lane[0]; }
};
DEVICE void store(Element *y, const Pack &pack) { Store<sizeof(Pack) / 4>::to(y, pack); }

// Every thread of a token has two packs of the row. In the half layout one holds the first members
// of WIDTH pairs and the other the second ones. In the interleaved layout each holds WIDTH / 2 whole
// pairs; at the same two places, so that neighbouring threads are neighbours in memory. Where the
// layouts differ, the interleaved side has its two packs next to each other instead.
constexpr int LANES = PAIRS / WIDTH;
constexpr bool APART = WIDTH > 1 && INTERLEAVED && OUTPUT_INTERLEAVED;

DEVICE int pair_of(int lane, int j) {
    if (!APART) return lane * WIDTH + j;
    const int within = lane * (WIDTH / 2) + j % (WIDTH / 2);
    return j < WIDTH / 2 ? within : PAIRS / 2 + within;
}

template <bool interleaved>
DEVICE int place(int lane, int pack) {
    if (interleaved && !APART) return START + (2 * lane + pack) * WIDTH;
    return START + pack * PAIRS + lane * WIDTH;
}

// Member 0 or 1 of the thread's pair j, in its two packs.
template <bool interleaved>
DEVICE Element &member(Pack (&packs)[2], int j, int which) {
    if (!interleaved) return packs[which].lane[j];
    return packs[(2 * j + which) / WIDTH].lane[(2 * j + which) % WIDTH];
}

struct Rows {
    int chunks, rows, heads;
    long long x_batch, x_token, x_head, y_batch, y_token, y_head;
};

KERNEL void rotate_rows(
    const Element *x, Element *y, const Element *x_other, Element *y_other,
    const POSITION *positions, const long long *turns, int tokens, int sequence,
    long long position_batch, long long position_token, float magnitude, float sin_magnitude,
    int rows_per_thread, int chunks_first,
    int chunks_of_x, int rows_of_x, int heads_of_x, long long x_batch, long long x_token,
    long long x_head, long long y_batch, long long y_token, long long y_head,
    int chunks_other, int rows_other, int heads_other, long long x_batch_other,
    long long x_token_other, long long x_head_other, long long y_batch_other,
    long long y_token_other, long long y_head_other) {
    Rows rows = {chunks_of_x, rows_of_x, heads_of_x, x_batch, x_token, x_head,
                 y_batch, y_token, y_head};
    const Rows other = {chunks_other, rows_other, heads_other, x_batch_other, x_token_other,
                        x_head_other, y_batch_other, y_token_other, y_head_other};
    const int lane = threadIdx.x % LANES, slot = threadIdx.x / LANES;
    const int chunks = rows.chunks + other.chunks, blocks = (tokens + TOKENS - 1) / TOKENS;
    const int block = chunks_first ? blockIdx.x / chunks : blockIdx.x % blocks;
    int chunk = chunks_first ? blockIdx.x % chunks : blockIdx.x / blocks;
    const int token = block * TOKENS + slot;
    if (slot >= TOKENS || token >= tokens) return;
    if (chunk >= rows.chunks) {
        chunk -= rows.chunks;
        rows = other, x = x_other, y = y_other;
    }

    const long long batch = token / sequence, step = token % sequence;
    const long long position = positions[batch * position_batch + step * position_token];
    float cos[WIDTH], sin[WIDTH];
#pragma unroll
    for (int j = 0; j < WIDTH; ++j) {  // the product wraps: a turn is 2^64
        cos_sin((unsigned long long)position * (unsigned long long)turns[pair_of(lane, j)], cos[j],
                sin[j]);
        cos[j] *= magnitude;
        sin[j] *= sin_magnitude;
    }

    x += batch * rows.x_batch + step * rows.x_token;
    y += batch * rows.y_batch + step * rows.y_token;
    const int end = min((chunk + 1) * rows_per_thread, rows.rows);
    for (int first = chunk * rows_per_thread; first < end; first += UNROLL) {
        Pack packs[UNROLL][2];
#pragma unroll
        for (int i = 0; i < UNROLL; ++i) {
            const int row = first + i;
            if (row >= end) break;
            const Element *from =
                x + (row / rows.heads) * rows.x_batch + (row % rows.heads) * rows.x_head;
            packs[i][0] = load(from + place<INTERLEAVED>(lane, 0));
            packs[i][1] = load(from + place<INTERLEAVED>(lane, 1));
        }
#pragma unroll
        for (int i = 0; i < UNROLL; ++i) {
            const int row = first + i;
            if (row >= end) break;
            Pack turned[2];
#pragma unroll
            for (int j = 0; j < WIDTH; ++j) {
                const float a = to_float(member<INTERLEAVED>(packs[i], j, 0));
                const float b = to_float(member<INTERLEAVED>(packs[i], j, 1));
                member<OUTPUT_INTERLEAVED>(turned, j, 0) = from_float(a * cos[j] - b * sin[j]);
                member<OUTPUT_INTERLEAVED>(turned, j, 1) = from_float(b * cos[j] + a * sin[j]);
            }
            Element *to = y + (row / rows.heads) * rows.y_batch + (row % rows.heads) * rows.y_head;
            store(to + place<OUTPUT_INTERLEAVED>(lane, 0), turned[0]);
            store(to + place<OUTPUT_INTERLEAVED>(lane, 1), turned[1]);
            if (COPY) {
                const Element *from =
                    x + (row / rows.heads) * rows.x_batch + (row % rows.heads) * rows.x_head;
                for (int kept = lane * WIDTH; kept < HEAD_DIM - 2 * PAIRS; kept += PAIRS) {
                    const int at = kept < START ? kept : kept + 2 * PAIRS;
                    store(to + at, load(from + at));
                }
            }
        }
    }
}
