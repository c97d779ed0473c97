/* The operator ccnet::NeSCM for ONNX Runtime: a graph that has it runs nescm.c on ONNX Runtime's own threads.
 *
 * ONNX Runtime's C headers are in no package registry, so what is needed of them is declared here. Its binary interface
 * only grows: a function's place in the table stays as it was in the version that brought it, here 1.17 at the latest.
 * A graph may come from anywhere, so every shape is checked before a number is read.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "nescm.h"

#if defined(_WIN32)
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif

enum { VERSION = 17, FLOAT = 1, INVALID_ARGUMENT = 2, FAIL = 1, RANK = 6 };

typedef struct { const void *at[275]; } Api;
typedef struct { const Api *(*get)(uint32_t version); const char *(*version)(void); } ApiBase;
typedef void Status; /* null where all went well; ONNX Runtime's to free */

#define CREATE_STATUS(api) ((Status *(*)(int, const char *))(api)->at[0])
#define CREATE_DOMAIN(api) ((Status *(*)(const char *, void **))(api)->at[26])
#define ADD_OPERATOR(api) ((Status *(*)(void *, const void *))(api)->at[27])
#define ADD_DOMAIN(api) ((Status *(*)(void *, void *))(api)->at[28])
#define GET_DATA(api) ((Status *(*)(void *, void **))(api)->at[51])
#define GET_RANK(api) ((Status *(*)(const void *, size_t *))(api)->at[61])
#define GET_DIMENSIONS(api) ((Status *(*)(const void *, int64_t *, size_t))(api)->at[62])
#define GET_SHAPE(api) ((Status *(*)(const void *, void **))(api)->at[65])
#define GET_ATTRIBUTE(api) ((Status *(*)(const void *, const char *, int64_t *))(api)->at[86])
#define GET_INPUT(api) ((Status *(*)(const void *, size_t, const void **))(api)->at[90])
#define GET_OUTPUT(api) ((Status *(*)(void *, size_t, const int64_t *, size_t, void **))(api)->at[91])
#define FREE_SHAPE(api) ((void (*)(void *))(api)->at[99])
#define PARALLEL(api) ((Status *(*)(const void *, void (*)(void *, size_t), size_t, size_t, void *))(api)->at[274])

typedef struct Operator {
    uint32_t version;
    void *create_1;
    const char *(*name)(const struct Operator *);
    const char *(*provider)(const struct Operator *);
    int (*input_type)(const struct Operator *, size_t);
    size_t (*inputs)(const struct Operator *);
    int (*output_type)(const struct Operator *, size_t);
    size_t (*outputs)(const struct Operator *);
    void *compute_1;
    void (*destroy)(void *kernel);
    int (*input_kind)(const struct Operator *, size_t);
    int (*output_kind)(const struct Operator *, size_t);
    int (*input_memory)(const struct Operator *, size_t);
    void *variadic[4];
    Status *(*create)(const struct Operator *, const Api *, const void *info, void **kernel);
    Status *(*compute)(void *kernel, void *context);
    void *later[7];
} Operator;

typedef struct { const Api *api; int64_t groups; } Kernel;

enum { X, FORGET, FORGET_BIAS, OUTPUT, OUTPUT_BIAS, INPUTS };

typedef struct { size_t rank; int64_t size[RANK]; const float *data; } Tensor;

typedef struct { NescmShape shape; Tensor in[INPUTS]; float *y; long jobs; int failed; } Work;

static Status *read_input(const Api *api, const void *context, size_t index, Tensor *to) {
    const void *value;
    void *shape, *data;
    Status *status = GET_INPUT(api)(context, index, &value);
    if (status || (status = GET_SHAPE(api)(value, &shape))) return status;
    status = GET_RANK(api)(shape, &to->rank);
    if (!status && to->rank <= RANK) status = GET_DIMENSIONS(api)(shape, to->size, to->rank);
    FREE_SHAPE(api)(shape);
    if (status || (status = GET_DATA(api)((void *)value, &data))) return status;
    to->data = data;
    return 0;
}

static int has(const Tensor *tensor, size_t rank, const int64_t *size) {
    return tensor->rank == rank && memcmp(tensor->size, size, rank * sizeof *size) == 0;
}

/* Whether the shapes are those that nescm.c takes; fills in the work's. */
static int fits(Work *work, int64_t groups) {
    const Tensor *x = &work->in[X], *forget = &work->in[FORGET];
    if (x->rank != 4 || forget->rank != 3) return 0;
    const int64_t n = forget->size[1], most = INT32_MAX;
    if ((n != 1 && n != 2 && n != 4) || groups < 1 || groups > 64 || x->size[1] < n || x->size[1] > 64 * n) return 0;
    if (x->size[1] % (n * groups) || x->size[2] < 1 || x->size[3] < 1) return 0;
    if (x->size[0] < 0 || x->size[2] > most || x->size[3] > most) return 0;
    work->shape = (NescmShape){(int)n, (int)(x->size[1] / n), (int)groups, (int)x->size[2], (int)x->size[3]};
    return has(forget, 3, (int64_t[]){2, n, 2 * n}) && has(&work->in[FORGET_BIAS], 2, (int64_t[]){2, n}) &&
           has(&work->in[OUTPUT], 6, (int64_t[]){2, n, n, 3, 3, 3}) && has(&work->in[OUTPUT_BIAS], 1, (int64_t[]){n});
}

static void run_job(void *given, size_t index) {
    Work *work = given;
    const NescmShape s = work->shape;
    const long at = (long)(index / work->jobs) * s.heads * s.bands * s.height * s.width;
    if (nescm_run(s, work->in[X].data + at, work->in[FORGET].data, work->in[FORGET_BIAS].data, work->in[OUTPUT].data,
                  work->in[OUTPUT_BIAS].data, work->y + at, (long)(index % work->jobs)))
        work->failed = 1;
}

static Status *compute(void *given, void *context) {
    const Kernel *kernel = given;
    const Api *api = kernel->api;
    Work work = {0};
    void *output, *data;
    for (size_t index = 0; index < INPUTS; index++) {
        Status *status = read_input(api, context, index, &work.in[index]);
        if (status) return status;
    }
    if (!fits(&work, kernel->groups))
        return CREATE_STATUS(api)(INVALID_ARGUMENT, "ccnet::NeSCM: its weights' shapes do not fit its input's");
    const int64_t *size = work.in[X].size;
    Status *status = GET_OUTPUT(api)(context, 0, size, 4, &output);
    if (status || (status = GET_DATA(api)(output, &data))) return status;
    work.y = data;
    work.jobs = nescm_jobs(work.shape);
    if ((status = PARALLEL(api)(context, run_job, (size_t)(size[0] * work.jobs), 0, &work))) return status;
    return work.failed ? CREATE_STATUS(api)(FAIL, "ccnet::NeSCM: Failed to allocate memory") : 0;
}

static Status *create(const Operator *self, const Api *api, const void *info, void **kernel) {
    Kernel *made = malloc(sizeof *made);
    (void)self;
    if (!made) return CREATE_STATUS(api)(FAIL, "ccnet::NeSCM: Failed to allocate memory");
    made->api = api;
    *kernel = made;
    Status *status = GET_ATTRIBUTE(api)(info, "groups", &made->groups);
    if (status) free(made);
    return status;
}

static const char *name(const Operator *self) { return (void)self, "NeSCM"; }
static const char *provider(const Operator *self) { return (void)self, (const char *)0; /* the CPU's */ }
static int type(const Operator *self, size_t index) { return (void)self, (void)index, FLOAT; }
static int usual(const Operator *self, size_t index) { return (void)self, (void)index, 0; /* required, on the CPU */ }
static size_t inputs(const Operator *self) { return (void)self, INPUTS; }
static size_t outputs(const Operator *self) { return (void)self, 1; }

/* ONNX Runtime calls this by name for a library that is registered with a session's options. */
EXPORT Status *RegisterCustomOps(void *options, const ApiBase *base) {
    static const Operator nescm = {
        .version = VERSION, .name = name, .provider = provider, .input_type = type, .inputs = inputs,
        .output_type = type, .outputs = outputs, .destroy = free, .input_kind = usual, .output_kind = usual,
        .input_memory = usual, .create = create, .compute = compute,
    };
    const Api *api = base->get(VERSION);
    void *domain;
    Status *status = CREATE_DOMAIN(api)("ccnet", &domain); /* lives as long as the process, as the sessions need it */
    if (status || (status = ADD_OPERATOR(api)(domain, &nescm))) return status;
    return ADD_DOMAIN(api)(options, domain);
}
