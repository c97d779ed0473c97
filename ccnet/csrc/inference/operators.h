/* The network's modules for inference, on one image. Each is computed in jobs, which may run at the same time.
 *
 * Tensors are (channels, height, width). common/kernel.h states what a job returns.
 */
#pragma once

#include "common/kernel.h"

#define MAX_CHANNELS 1024
#define MAX_HIDDEN 4096

/* channels of a group: a multiple of 4; bands: of a head, divide the group. */
typedef struct { int channels, groups, bands, height, width; } BandCosineShape;

/* A job leaves band_cosine_sums numbers, one job after the other; band_cosine_finish computes y of an image from them. */
long band_cosine_jobs(BandCosineShape shape);
long band_cosine_sums(BandCosineShape shape);
int band_cosine_run(BandCosineShape shape, const float *x, double *sums, long job);
int band_cosine_finish(BandCosineShape shape, double *sums, const float *keys, const float *queries, float *y);

/* channels of a group: a multiple of 4. */
typedef struct { int channels, groups, height, width; } GrscmShape;

long grscm_jobs(GrscmShape shape);
int grscm_run(GrscmShape shape, const float *x, const float *values, const float *matrix, const float *bias,
              const float *first, const float *second, float *y, long job);

/* heads: 1, 2 or 4; pooled: whether SIA's pooling follows. */
typedef struct { int heads, bands, groups, pooled, height, width; } NescmShape;

long nescm_jobs(NescmShape shape);
int nescm_run(NescmShape shape, const float *x, const float *w, const float *b, const float *kernel,
              const float *bias, float *y, long job);

/* channels: a multiple of 4; groups: at most MAX_GROUPS; patch: 4, 8 or 16, divides height and width. */
typedef struct { int channels, groups, patch, height, width; } PafShape;

long paf_jobs(PafShape shape);
int paf_run(PafShape shape, const float *x, const float *attended, const float *pooled, const float *aggregate,
            const float *aggregate_bias, const float *compress, const float *compress_bias, const float *map,
            const float *bias, float *y, long job);

/* channels, hidden: multiples of 4. */
typedef struct { int channels, hidden, height, width; float epsilon; } FfnShape;

long ffn_jobs(FfnShape shape);
int ffn_run(FfnShape shape, const float *x, const float *scale, const float *shift, const float *expand,
            const float *spatial, const float *project, float *y, long job);

#define RGB_CHANNELS 3

/* bands: at least 4; hidden: a multiple of 4. */
typedef struct { int bands, hidden, height, width; } PixelMlpShape;

long pixel_mlp_jobs(PixelMlpShape shape);
int pixel_mlp_run(PixelMlpShape shape, const float *cube, const float *rgb, const float *first, const float *second,
                  const float *third, const float *last, float *y, long job);

/* channels: a multiple of 4; inner, height, width: the channels and size of the coarser scale. */
typedef struct { int channels, inner, height, width; } UpsampleFuseShape;

long upsample_fuse_jobs(UpsampleFuseShape shape);
int upsample_fuse_run(UpsampleFuseShape shape, const float *beside, const float *below, const float *up,
                      const float *skip, const float *bias, float *y, long job);
