/* The cosines of keys and queries over all pixels (Eq. 3), from the Gram matrix of each group's bands, without the keys
 * and queries themselves (ccnet/ops/band_cosine.py):
 *
 *     G = X X^T,   y_ij = (W_k G W_q^T)_ij / (|k_i| |q_j|),   |k_i|^2 = (W_k G W_k^T)_ii
 *
 * for the key i and query j of a head. All sums are float64: neighbouring bands are alike, and a map may take their
 * difference.
 *
 * Layout: x (C, H, W); W_k, W_q (C, C / k), which map each group's channels to themselves; y (C / b, b, b).
 */
#include <stdlib.h>
#include <string.h>

#include "common/blocks.h"
#include "common/fusion.h"
#include "common/gemm.h"
#include "inference/operators.h"

#define BLOCK 4096 /* pixels of a job */
#define RUN 256    /* pixels that are converted to float64 at once */

enum { SIDE = OUTPUT_ROWS }; /* bands on each side of the part of G whose sums stay in registers */

INLINE int group_size(BandCosineShape shape) { return shape.channels / shape.groups; }

/* Convert `count` pixels of some channels, with zeros from there to RUN. */
INLINE void convert(const float *from, int channels, long plane, long count, double (*to)[RUN]) {
    for (int c = 0; c < channels; c++, from += plane, to++) {
        for (long p = 0; p < count; p++) (*to)[p] = from[p];
        if (count < RUN) memset(*to + count, 0, (RUN - count) * sizeof **to);
    }
}

/* sums (SIDE rows, `columns` apart) += a b^T. */
INLINE void add_products(const double (*a)[RUN], const double (*b)[RUN], double *sums, long columns) {
    double part[SIDE][SIDE] = {{0}};
    for (int p = 0; p < RUN; p++)
        for (int i = 0; i < SIDE; i++)
            for (int j = 0; j < SIDE; j++) part[i][j] += a[i][p] * b[j][p];
    for (int i = 0; i < SIDE; i++)
        for (int j = 0; j < SIDE; j++) sums[i * columns + j] += part[i][j];
}

long band_cosine_jobs(BandCosineShape shape) { return ((long)shape.height * shape.width + BLOCK - 1) / BLOCK; }

long band_cosine_sums(BandCosineShape shape) { return (long)shape.channels * group_size(shape); }

/* sums: (C, C / k), each group's G over the pixels of the job, on and below the diagonal. */
CLONES int band_cosine_run(BandCosineShape shape, const float *x, double *sums, long job) {
    const int c = group_size(shape);
    const long plane = (long)shape.height * shape.width;
    const Block block = block_of(plane, BLOCK, job);
    double(*bands)[RUN] = malloc(c * sizeof *bands);
    if (!bands) return OUT_OF_MEMORY;
    memset(sums, 0, band_cosine_sums(shape) * sizeof *sums);
    for (int group = 0; group < shape.groups; group++, x += c * plane, sums += (long)c * c)
        for (long p = 0; p < block.count; p += RUN) {
            convert(x + block.start + p, c, plane, block.count - p < RUN ? block.count - p : RUN, bands);
            for (int i = 0; i < c; i += SIDE)
                for (int j = 0; j <= i; j += SIDE) add_products(bands + i, bands + j, sums + (long)i * c + j, c);
        }
    free(bands);
    return 0;
}

INLINE double dot_of(const double *a, const float *b, int count) {
    double sum = 0;
    for (int i = 0; i < count; i++) sum += a[i] * b[i];
    return sum;
}

/* products (c, c) = W G; norms: of the features that W maps to. */
INLINE void map_gram(int c, const float *w, const double *gram, double *products, double *norms) {
    for (int o = 0; o < c; o++, w += c, products += c) {
        for (int j = 0; j < c; j++) products[j] = dot_of(gram + (long)j * c, w, c); /* G is symmetric */
        const double squares = dot_of(products, w, c);
        norms[o] = squares > (double)MIN_NORM * MIN_NORM ? sqrt(squares) : (double)MIN_NORM;
    }
}

/* Compute y of a group from its G. work: room for 2 (c, c) and 2 (c). */
INLINE void cosines(int c, int bands, const double *gram, const float *keys, const float *queries, double *work,
                    float *y) {
    double *const mapped = work, *const other = mapped + (long)c * c, *const key_norms = other + (long)c * c;
    double *const query_norms = key_norms + c;
    map_gram(c, queries, gram, other, query_norms);
    map_gram(c, keys, gram, mapped, key_norms);
    for (int i = 0; i < c; i++)
        for (int j = i / bands * bands; j < (i / bands + 1) * bands; j++)
            *y++ = (float)(dot_of(mapped + (long)i * c, queries + (long)j * c, c) / (key_norms[i] * query_norms[j]));
}

/* sums: the results of all jobs, which are overwritten. */
CLONES int band_cosine_finish(BandCosineShape shape, double *sums, const float *keys, const float *queries, float *y) {
    const int c = group_size(shape);
    const long size = band_cosine_sums(shape), jobs = band_cosine_jobs(shape), matrix = (long)c * c;
    double *const work = malloc((2 * matrix + 2 * c) * sizeof *work);
    if (!work) return OUT_OF_MEMORY;
    for (long job = 1; job < jobs; job++)
        for (long i = 0; i < size; i++) sums[i] += sums[job * size + i];
    for (int group = 0; group < shape.groups; group++, sums += matrix) {
        for (int i = 0; i < c; i++)
            for (int j = i + 1; j < c; j++) sums[(long)i * c + j] = sums[(long)j * c + i];
        cosines(c, shape.bands, sums, keys + group * matrix, queries + group * matrix, work,
                y + (long)group * c * shape.bands);
    }
    free(work);
    return 0;
}
