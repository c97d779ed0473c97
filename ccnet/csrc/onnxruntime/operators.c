/* The operators ccnet::GrSCM, NeSCM, PooledNeSCM, PAF, FFN and Join for ONNX Runtime: a graph that has them runs grscm.c,
 * nescm.c, paf.c, ffn.c and join.c on ONNX Runtime's own threads.
 *
 * ONNX Runtime's C headers are in no package registry, so what is needed of them is declared here. Its binary interface
 * only grows: a function's place in the table stays as it was in the version that brought it, here 1.17 at the latest.
 * A graph may come from anywhere, so every shape is checked before a number is read.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "inference/operators.h"

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
#define GET_REAL(api) ((Status *(*)(const void *, const char *, float *))(api)->at[85])
#define GET_WHOLE(api) ((Status *(*)(const void *, const char *, int64_t *))(api)->at[86])
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

enum { INPUTS = 9 };

typedef struct { size_t rank; int64_t size[RANK]; const float *data; } Tensor;

typedef union { int64_t whole; float real; } Attribute;

struct Part;

typedef struct {
    const struct Part *part;
    Attribute attribute;
    Tensor in[INPUTS]; /* the first is (B, C, H, W) */
    float *y;
    int64_t channels; /* of the output, whose other sizes are those of the first input */
    long jobs; /* of an image */
    union { GrscmShape grscm; NescmShape nescm; PafShape paf; FfnShape ffn; JoinShape join; };
    int failed;
} Work;

/* An operator: its attribute, if it has one; whether the inputs' shapes fit, which fills in the work's shape and jobs; a job of an
 * image whose tensors begin there. */
typedef struct Part {
    Operator base;
    const char *name, *attribute;
    size_t inputs;
    int real, pooled;
    int (*fits)(Work *);
    int (*run)(const Work *, long image, long job);
} Part;

typedef struct { const Api *api; const Part *part; Attribute attribute; } Kernel;

static int has(const Tensor *tensor, size_t rank, const int64_t *size) {
    return tensor->rank == rank && memcmp(tensor->size, size, rank * sizeof *size) == 0;
}
#define HAS(tensor, ...) has(tensor, sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t), (int64_t[]){__VA_ARGS__})

static const float *of_image(const Tensor *tensor, long image) {
    return tensor->data + image * tensor->size[1] * tensor->size[2] * tensor->size[3];
}

static float *output(const Work *work, long image) {
    return work->y + image * work->channels * work->in[0].size[2] * work->in[0].size[3];
}

static int grscm_fits(Work *work) {
    const Tensor *in = work->in;
    const int64_t groups = work->attribute.whole, *x = in[0].size;
    if (groups < 1 || groups > x[1] || x[1] % (4 * groups)) return 0;
    work->grscm = (GrscmShape){(int)x[1], (int)groups, (int)x[2], (int)x[3]};
    work->jobs = grscm_jobs(work->grscm);
    return HAS(&in[1], x[1], x[1] / groups, 1, 1) && HAS(&in[2], x[0], x[1], x[1]) && HAS(&in[3], x[1]) &&
           HAS(&in[4], x[1], 1, 3, 3) && HAS(&in[5], x[1], 1, 3, 3);
}

static int run_grscm(const Work *work, long image, long job) {
    const Tensor *in = work->in;
    const float *matrix = in[2].data + image * in[2].size[1] * in[2].size[2];
    return grscm_run(work->grscm, of_image(in, image), in[1].data, matrix, in[3].data, in[4].data, in[5].data,
                     output(work, image), job);
}

static int nescm_fits(Work *work) {
    const Tensor *in = work->in;
    const int64_t n = in[1].size[1], groups = work->attribute.whole, *x = in[0].size;
    if (in[1].rank != 3 || (n != 1 && n != 2 && n != 4) || groups < 1 || groups > 64) return 0;
    if (x[1] < n || x[1] > 64 * n || x[1] % (n * groups)) return 0;
    const int pooled = work->part->pooled;
    if (pooled) work->channels = 2 * groups;
    work->nescm = (NescmShape){(int)n, (int)(x[1] / n), (int)groups, pooled, (int)x[2], (int)x[3]};
    work->jobs = nescm_jobs(work->nescm);
    return HAS(&in[1], 2, n, 2 * n) && HAS(&in[2], 2, n) && HAS(&in[3], 2, n, n, 3, 3, 3) && HAS(&in[4], n);
}

static int run_nescm(const Work *work, long image, long job) {
    const Tensor *in = work->in;
    return nescm_run(work->nescm, of_image(in, image), in[1].data, in[2].data, in[3].data, in[4].data,
                     output(work, image), job);
}

static int paf_fits(Work *work) {
    const Tensor *in = work->in;
    const int64_t r = work->attribute.whole, groups = in[3].size[0], *x = in[0].size;
    if ((r != 4 && r != 8 && r != 16) || x[2] % r || x[3] % r || x[1] % 4 || in[3].rank != 4) return 0;
    if (groups < 1 || groups > 16) return 0;
    work->paf = (PafShape){(int)x[1], (int)groups, (int)r, (int)x[2], (int)x[3]};
    work->jobs = paf_jobs(work->paf);
    return HAS(&in[1], x[0], x[1], x[2], x[3]) && HAS(&in[2], x[0], 2 * groups, x[2], x[3]) &&
           HAS(&in[3], groups, 2, 3, 3) && HAS(&in[4], groups) && HAS(&in[5], groups, groups, 1, 1) &&
           HAS(&in[6], groups) && HAS(&in[7], x[1], x[1], 1, 1) && HAS(&in[8], x[1]);
}

static int run_paf(const Work *work, long image, long job) {
    const Tensor *in = work->in;
    return paf_run(work->paf, of_image(in, image), of_image(in + 1, image), of_image(in + 2, image), in[3].data,
                   in[4].data, in[5].data, in[6].data, in[7].data, in[8].data, output(work, image), job);
}

static int ffn_fits(Work *work) {
    const Tensor *in = work->in;
    const int64_t channels = in[0].size[1], hidden = in[3].size[0], *x = in[0].size;
    if (in[3].rank != 4 || channels % 4 || hidden < 4 || hidden % 4 || hidden > 4096) return 0;
    if (!(work->attribute.real >= 0.f)) return 0;
    work->ffn = (FfnShape){(int)channels, (int)hidden, (int)x[2], (int)x[3], work->attribute.real};
    work->jobs = ffn_jobs(work->ffn);
    return HAS(&in[1], channels) && HAS(&in[2], channels) && HAS(&in[3], hidden, channels, 1, 1) &&
           HAS(&in[4], hidden, 1, 3, 3) && HAS(&in[5], channels, hidden, 1, 1);
}

static int run_ffn(const Work *work, long image, long job) {
    const Tensor *in = work->in;
    return ffn_run(work->ffn, of_image(in, image), in[1].data, in[2].data, in[3].data, in[4].data, in[5].data,
                   output(work, image), job);
}

static int join_fits(Work *work) {
    const Tensor *in = work->in;
    const int64_t *x = in[0].size, *below = in[1].size;
    if (in[1].rank != 4 || x[1] % 4 || x[2] % 2 || x[3] % 2 || below[1] < 1 || below[1] > 1024) return 0;
    work->join = (JoinShape){(int)x[1], (int)below[1], (int)(x[2] / 2), (int)(x[3] / 2)};
    work->jobs = join_jobs(work->join);
    return HAS(&in[1], x[0], below[1], x[2] / 2, x[3] / 2) && HAS(&in[2], 2, 2, x[1], below[1]) &&
           HAS(&in[3], x[1], x[1]) && HAS(&in[4], x[1]);
}

static int run_join(const Work *work, long image, long job) {
    const Tensor *in = work->in;
    return join_run(work->join, of_image(in, image), of_image(in + 1, image), in[2].data, in[3].data, in[4].data,
                    output(work, image), job);
}

static Status *read_input(const Api *api, const void *context, size_t index, Tensor *to) {
    const void *value;
    void *shape, *data;
    Status *status = GET_INPUT(api)(context, index, &value);
    if (status || !value) return status ? status : CREATE_STATUS(api)(INVALID_ARGUMENT, "ccnet: an input is missing");
    if ((status = GET_SHAPE(api)(value, &shape))) return status;
    status = GET_RANK(api)(shape, &to->rank);
    if (!status && to->rank <= RANK) status = GET_DIMENSIONS(api)(shape, to->size, to->rank);
    FREE_SHAPE(api)(shape);
    if (status || (status = GET_DATA(api)((void *)value, &data))) return status;
    to->data = data;
    return 0;
}

/* What every part asks of its first input; the rest it asks itself. */
static int is_image(const Tensor *x) {
    const int64_t most = 1 << 24;
    return x->rank == 4 && x->size[0] >= 0 && x->size[1] >= 1 && x->size[1] <= 1024 && x->size[2] >= 1 &&
           x->size[2] <= most && x->size[3] >= 1 && x->size[3] <= most;
}

static void run_job(void *given, size_t index) {
    Work *work = given;
    if (work->part->run(work, (long)(index / work->jobs), (long)(index % work->jobs))) work->failed = 1;
}

static Status *refuse(const Api *api, const Part *part, int code, const char *why) {
    char text[96] = "ccnet::";
    strcat(strcat(text, part->name), why);
    return CREATE_STATUS(api)(code, text);
}

static Status *compute(void *given, void *context) {
    const Kernel *kernel = given;
    const Api *api = kernel->api;
    Work work = {.part = kernel->part, .attribute = kernel->attribute};
    void *made, *data;
    Status *status;
    for (size_t index = 0; index < kernel->part->inputs; index++)
        if ((status = read_input(api, context, index, &work.in[index]))) return status;
    work.channels = work.in[0].size[1];
    if (!is_image(work.in) || !kernel->part->fits(&work))
        return refuse(api, kernel->part, INVALID_ARGUMENT, ": its inputs' shapes do not fit each other, or its attribute");
    const int64_t *x = work.in[0].size, size[4] = {x[0], work.channels, x[2], x[3]};
    if ((status = GET_OUTPUT(api)(context, 0, size, 4, &made)) || !made) return status;
    if ((status = GET_DATA(api)(made, &data))) return status;
    work.y = data;
    if ((status = PARALLEL(api)(context, run_job, (size_t)(size[0] * work.jobs), 0, &work))) return status;
    return work.failed ? refuse(api, kernel->part, FAIL, ": Failed to allocate memory") : 0;
}

static Status *create(const Operator *self, const Api *api, const void *info, void **kernel) {
    const Part *part = (const Part *)self;
    Kernel *made = malloc(sizeof *made);
    if (!made) return refuse(api, part, FAIL, ": Failed to allocate memory");
    made->api = api, made->part = part;
    *kernel = made;
    if (!part->attribute) return 0;
    Status *status = part->real ? GET_REAL(api)(info, part->attribute, &made->attribute.real)
                                : GET_WHOLE(api)(info, part->attribute, &made->attribute.whole);
    if (status) free(made);
    return status;
}

static const char *name(const Operator *self) { return ((const Part *)self)->name; }
static size_t inputs(const Operator *self) { return ((const Part *)self)->inputs; }
static const char *provider(const Operator *self) { return (void)self, (const char *)0; /* the CPU's */ }
static int type(const Operator *self, size_t index) { return (void)self, (void)index, FLOAT; }
static int usual(const Operator *self, size_t index) { return (void)self, (void)index, 0; /* required, on the CPU */ }
static size_t outputs(const Operator *self) { return (void)self, 1; }

#define OPERATOR                                                                                                   \
    .base = {.version = VERSION, .name = name, .provider = provider, .input_type = type, .inputs = inputs,          \
             .output_type = type, .outputs = outputs, .destroy = free, .input_kind = usual, .output_kind = usual,   \
             .input_memory = usual, .create = create, .compute = compute}

static const Part PARTS[] = {
    {OPERATOR, .name = "GrSCM", .attribute = "groups", .inputs = 6, .fits = grscm_fits, .run = run_grscm},
    {OPERATOR, .name = "NeSCM", .attribute = "groups", .inputs = 5, .fits = nescm_fits, .run = run_nescm},
    {OPERATOR, .name = "PooledNeSCM", .attribute = "groups", .inputs = 5, .pooled = 1, .fits = nescm_fits, .run = run_nescm},
    {OPERATOR, .name = "PAF", .attribute = "patch", .inputs = 9, .fits = paf_fits, .run = run_paf},
    {OPERATOR, .name = "FFN", .attribute = "epsilon", .real = 1, .inputs = 6, .fits = ffn_fits, .run = run_ffn},
    {OPERATOR, .name = "Join", .inputs = 5, .fits = join_fits, .run = run_join},
};

/* ONNX Runtime calls this by name for a library that is registered with a session's options. */
EXPORT Status *RegisterCustomOps(void *options, const ApiBase *base) {
    static void *domain; /* lives as long as the process, as the sessions need it */
    const Api *api = base->get(VERSION);
    if (!api) return 0; /* older than 1.17: a graph with our operators is refused for want of them */
    if (domain) return ADD_DOMAIN(api)(options, domain);
    Status *status = CREATE_DOMAIN(api)("ccnet", &domain);
    for (size_t index = 0; !status && index < sizeof PARTS / sizeof *PARTS; index++)
        status = ADD_OPERATOR(api)(domain, &PARTS[index].base);
    return status ? status : ADD_DOMAIN(api)(options, domain);
}
