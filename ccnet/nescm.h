/* NeSCM for inference: an image is done in jobs that may run at once. */
typedef struct { int heads, bands, groups, height, width; } NescmShape; /* heads 1, 2 or 4 */

long nescm_jobs(NescmShape shape);

/* One of the jobs; x and y are (heads * bands, height, width) and apart. Not 0: there is no memory. */
int nescm_run(NescmShape shape, const float *x, const float *w, const float *b, const float *kernel,
              const float *bias, float *y, long job);
