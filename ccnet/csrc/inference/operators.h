/* The network's parts for inference, on one image: each is done in jobs that may run at once.
 *
 * Tensors are (channels, height, width), what is read and what is written are apart. A job that is not 0 lacks memory.
 */
typedef struct { int heads, bands, groups, pooled, height, width; } NescmShape; /* heads 1, 2 or 4; pooled or not */

long nescm_jobs(NescmShape shape);
int nescm_run(NescmShape shape, const float *x, const float *w, const float *b, const float *kernel,
              const float *bias, float *y, long job);

typedef struct { int channels, hidden, height, width; float epsilon; } FfnShape; /* channels and hidden by 4 */

long ffn_jobs(FfnShape shape);
int ffn_run(FfnShape shape, const float *x, const float *scale, const float *shift, const float *expand,
            const float *spatial, const float *project, float *y, long job);

typedef struct { int channels, groups, patch, height, width; } PafShape; /* channels by 4, groups to 16, patch 4, 8 or 16, sides by it */

long paf_jobs(PafShape shape);
int paf_run(PafShape shape, const float *x, const float *attended, const float *pooled, const float *aggregate,
            const float *aggregate_bias, const float *compress, const float *compress_bias, const float *map,
            const float *bias, float *y, long job);

typedef struct { int channels, groups, height, width; } GrscmShape; /* channels of a group by 4 */

long grscm_jobs(GrscmShape shape);
int grscm_run(GrscmShape shape, const float *x, const float *values, const float *matrix, const float *bias,
              const float *first, const float *second, float *y, long job);

typedef struct { int channels, inner, height, width; } JoinShape; /* below's sizes; channels by 4 */

long join_jobs(JoinShape shape);
int join_run(JoinShape shape, const float *beside, const float *below, const float *up, const float *skip,
             const float *bias, float *y, long job);
