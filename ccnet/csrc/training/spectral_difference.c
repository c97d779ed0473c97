/* The spectral difference (Eq. 15) of a run of pixels, and its gradient to the estimate:
 *
 *     sum over i < j of | |e_j - e_i| - |t_j - t_i| |
 *
 * Layout: truth, estimate, gradient (B, bands, plane). Runs [first, last) are counted over all images.
 */
#include "common/simd.h"
#include "common/threads.h"

#define PIXELS 64

typedef float Run[PIXELS];

INLINE float sign_of(float x) { return (float)((x > 0.f) - (x < 0.f)); }

/* bands: at most MAX_BANDS. totals (runs). */
typedef struct { int64_t bands, plane; const float *truth, *estimate; float *gradient, *totals; } Given;

CLONES KERNEL(ccnet_spectral, Given) {
    const long bands = given->bands, plane = given->plane;
    Run t[MAX_BANDS], e[MAX_BANDS], g[MAX_BANDS];
    for (long index = first; index < last; index++) {
        const Block run = block_of(plane, PIXELS, index);
        const long at = run.image * bands * plane + run.at;
        const size_t size = run.count * sizeof(float);
        memset(t, 0, sizeof t), memset(e, 0, sizeof e), memset(g, 0, sizeof g); /* pixels beyond the plane differ by 0 */
        for (long b = 0; b < bands; b++) {
            memcpy(t[b], given->truth + at + b * plane, size);
            memcpy(e[b], given->estimate + at + b * plane, size);
        }
        Run sum = {0};
        for (long j = 1; j < bands; j++)
            for (long i = 0; i < j; i++)
                for (int p = 0; p < PIXELS; p++) {
                    const float gap = e[j][p] - e[i][p], excess = fabsf(gap) - fabsf(t[j][p] - t[i][p]);
                    const float slope = sign_of(excess) * sign_of(gap);
                    sum[p] += fabsf(excess);
                    g[j][p] += slope;
                    g[i][p] -= slope;
                }
        float total = 0.f;
        for (int p = 0; p < PIXELS; p++) total += sum[p];
        given->totals[index] = total;
        for (long b = 0; b < bands; b++) memcpy(given->gradient + at + b * plane, g[b], size);
    }
    return 1;
}
