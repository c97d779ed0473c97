/* The operators of the domain "ccnet" for ONNX Runtime: BandCosine, GrSCM, NeSCM, PooledNeSCM, PAF, FFN, PixelMLP and
 * Join. A graph with them runs the files of ../inference on ONNX Runtime's own threads. A graph may come from anywhere, so
 * every shape is checked before a number is read.
 */
#include <stdlib.h>
#include <string.h>

#include "common/bands.h"
#include "common/fusion.h"
#include "common/gemm.h"
#include "inference/operators.h"
#include "onnxruntime/abi.h"

enum { MAX_RANK = 6, MAX_INPUTS = 9, MAX_SIDE = 1 << 24 };

#define OUT_OF_MEMORY_MESSAGE ": Failed to allocate memory"

LIMIT(operator_channels, MAX_CHANNELS);
LIMIT(operator_hidden, MAX_HIDDEN);
LIMIT(operator_patches, 4, 8, 16);

typedef struct { size_t rank; int64_t size[MAX_RANK]; const float *data; } Tensor;

typedef union { int64_t whole; float real; } Attribute;

typedef struct Operator Operator;

typedef struct {
    const Operator *operator;
    Attribute attribute;
    Tensor in[MAX_INPUTS]; /* the first is (B, C, H, W) */
    float *y;
    int64_t size[4]; /* of the output; that of the first input, unless `check` sets another */
    long jobs;       /* of an image */
    long sums_per_job; /* numbers that a job leaves for `finish` */
    double *partial_sums; /* of all jobs of all images */
    union {
        BandCosineShape band_cosine;
        GrscmShape grscm;
        NescmShape nescm;
        PafShape paf;
        FfnShape ffn;
        PixelMlpShape pixel_mlp;
        UpsampleFuseShape upsample_fuse;
    };
    _Atomic int failed;
} Work;

/* An operator with at most one attribute.
 *
 * check: return whether the inputs fit each other and the attribute; fill in the work's shape and jobs.
 * run: compute a job of an image; return 0 for success.
 * finish: null, or a function that computes an image from what its jobs left; return 0 for success. */
struct Operator {
    CustomOp base;
    const char *name, *attribute;
    size_t inputs;
    int real; /* whether the attribute is a float */
    int pooled;
    int (*check)(Work *);
    int (*run)(const Work *, long image, long job);
    int (*finish)(const Work *, long image);
};

typedef struct { const Api *api; const Operator *operator; Attribute attribute; } Kernel;

static int has_size(const Tensor *tensor, size_t rank, const int64_t *size) {
    return tensor->rank == rank && memcmp(tensor->size, size, rank * sizeof *size) == 0;
}
#define HAS_SIZE(tensor, ...) \
    has_size(tensor, sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t), (int64_t[]){__VA_ARGS__})

static const float *image_of(const Tensor *tensor, long image) {
    return tensor->data + image * tensor->size[1] * tensor->size[2] * tensor->size[3];
}

static float *output(const Work *work, long image) {
    return work->y + image * work->size[1] * work->size[2] * work->size[3];
}

/* Return the numbers that a job of an image leaves for `finish`. */
static double *sums_of(const Work *work, long image, long job) {
    return work->partial_sums + (image * work->jobs + job) * work->sums_per_job;
}

static int check_band_cosine(Work *work) {
    const Tensor *in = work->in;
    const int64_t bands = work->attribute.whole, group = in[1].size[1], *x = in[0].size;
    if (in[1].rank != 4 || group < OUTPUT_ROWS || group % OUTPUT_ROWS || x[1] % group) return 0;
    if (bands < 1 || bands > group || group % bands) return 0;
    work->size[1] = x[1] / bands, work->size[2] = work->size[3] = bands;
    work->band_cosine = (BandCosineShape){(int)x[1], (int)(x[1] / group), (int)bands, (int)x[2], (int)x[3]};
    work->jobs = band_cosine_jobs(work->band_cosine), work->sums_per_job = band_cosine_sums(work->band_cosine);
    return HAS_SIZE(&in[1], x[1], group, 1, 1) && HAS_SIZE(&in[2], x[1], group, 1, 1);
}

static int run_band_cosine(const Work *work, long image, long job) {
    return band_cosine_run(work->band_cosine, image_of(work->in, image), sums_of(work, image, job), job);
}

static int finish_band_cosine(const Work *work, long image) {
    const Tensor *in = work->in;
    return band_cosine_finish(work->band_cosine, sums_of(work, image, 0), in[1].data, in[2].data, output(work, image));
}

static int check_grscm(Work *work) {
    const Tensor *in = work->in;
    const int64_t groups = work->attribute.whole, *x = in[0].size;
    if (groups < 1 || groups > x[1] || x[1] % (OUTPUT_ROWS * groups)) return 0;
    work->grscm = (GrscmShape){(int)x[1], (int)groups, (int)x[2], (int)x[3]};
    work->jobs = grscm_jobs(work->grscm);
    return HAS_SIZE(&in[1], x[1], x[1] / groups, 1, 1) && HAS_SIZE(&in[2], x[0], x[1], x[1]) &&
           HAS_SIZE(&in[3], x[1]) && HAS_SIZE(&in[4], x[1], 1, 3, 3) && HAS_SIZE(&in[5], x[1], 1, 3, 3);
}

static int run_grscm(const Work *work, long image, long job) {
    const Tensor *in = work->in;
    const float *matrix = in[2].data + image * in[2].size[1] * in[2].size[2];
    return grscm_run(work->grscm, image_of(in, image), in[1].data, matrix, in[3].data, in[4].data, in[5].data,
                     output(work, image), job);
}

static int check_nescm(Work *work) {
    const Tensor *in = work->in;
    const int64_t n = in[1].size[1], groups = work->attribute.whole, *x = in[0].size;
    if (in[1].rank != 3 || (n != 1 && n != 2 && n != 4) || groups < 1 || groups > MAX_BANDS) return 0;
    if (x[1] < n || x[1] > MAX_BANDS * n || x[1] % (n * groups)) return 0;
    const int pooled = work->operator->pooled;
    if (pooled) work->size[1] = 2 * groups;
    work->nescm = (NescmShape){(int)n, (int)(x[1] / n), (int)groups, pooled, (int)x[2], (int)x[3]};
    work->jobs = nescm_jobs(work->nescm);
    return HAS_SIZE(&in[1], 2, n, 2 * n) && HAS_SIZE(&in[2], 2, n) && HAS_SIZE(&in[3], 2, n, n, 3, 3, 3) &&
           HAS_SIZE(&in[4], n);
}

static int run_nescm(const Work *work, long image, long job) {
    const Tensor *in = work->in;
    return nescm_run(work->nescm, image_of(in, image), in[1].data, in[2].data, in[3].data, in[4].data,
                     output(work, image), job);
}

static int check_paf(Work *work) {
    const Tensor *in = work->in;
    const int64_t r = work->attribute.whole, groups = in[3].size[0], *x = in[0].size;
    if ((r != 4 && r != 8 && r != 16) || x[2] % r || x[3] % r || x[1] % OUTPUT_ROWS || in[3].rank != 4) return 0;
    if (groups < 1 || groups > MAX_GROUPS) return 0;
    work->paf = (PafShape){(int)x[1], (int)groups, (int)r, (int)x[2], (int)x[3]};
    work->jobs = paf_jobs(work->paf);
    return HAS_SIZE(&in[1], x[0], x[1], x[2], x[3]) && HAS_SIZE(&in[2], x[0], 2 * groups, x[2], x[3]) &&
           HAS_SIZE(&in[3], groups, 2, 3, 3) && HAS_SIZE(&in[4], groups) && HAS_SIZE(&in[5], groups, groups, 1, 1) &&
           HAS_SIZE(&in[6], groups) && HAS_SIZE(&in[7], x[1], x[1], 1, 1) && HAS_SIZE(&in[8], x[1]);
}

static int run_paf(const Work *work, long image, long job) {
    const Tensor *in = work->in;
    return paf_run(work->paf, image_of(in, image), image_of(in + 1, image), image_of(in + 2, image), in[3].data,
                   in[4].data, in[5].data, in[6].data, in[7].data, in[8].data, output(work, image), job);
}

static int check_ffn(Work *work) {
    const Tensor *in = work->in;
    const int64_t channels = in[0].size[1], hidden = in[3].size[0], *x = in[0].size;
    if (in[3].rank != 4 || channels % OUTPUT_ROWS || hidden % OUTPUT_ROWS) return 0;
    if (hidden < OUTPUT_ROWS || hidden > MAX_HIDDEN) return 0;
    if (!(work->attribute.real >= 0.f)) return 0;
    work->ffn = (FfnShape){(int)channels, (int)hidden, (int)x[2], (int)x[3], work->attribute.real};
    work->jobs = ffn_jobs(work->ffn);
    return HAS_SIZE(&in[1], channels) && HAS_SIZE(&in[2], channels) && HAS_SIZE(&in[3], hidden, channels, 1, 1) &&
           HAS_SIZE(&in[4], hidden, 1, 3, 3) && HAS_SIZE(&in[5], channels, hidden, 1, 1);
}

static int run_ffn(const Work *work, long image, long job) {
    const Tensor *in = work->in;
    return ffn_run(work->ffn, image_of(in, image), in[1].data, in[2].data, in[3].data, in[4].data, in[5].data,
                   output(work, image), job);
}

static int check_pixel_mlp(Work *work) {
    const Tensor *in = work->in;
    const int64_t hidden = in[2].size[0], *x = in[0].size;
    if (in[2].rank != 4 || x[1] < OUTPUT_ROWS || hidden % OUTPUT_ROWS) return 0;
    if (hidden < OUTPUT_ROWS || hidden > MAX_HIDDEN) return 0;
    work->pixel_mlp = (PixelMlpShape){(int)x[1], (int)hidden, (int)x[2], (int)x[3]};
    work->jobs = pixel_mlp_jobs(work->pixel_mlp);
    return HAS_SIZE(&in[1], x[0], RGB_CHANNELS, x[2], x[3]) && HAS_SIZE(&in[2], hidden, RGB_CHANNELS, 1, 1) &&
           HAS_SIZE(&in[3], hidden, hidden, 1, 1) && HAS_SIZE(&in[4], hidden, hidden, 1, 1) &&
           HAS_SIZE(&in[5], x[1], hidden, 1, 1);
}

static int run_pixel_mlp(const Work *work, long image, long job) {
    const Tensor *in = work->in;
    return pixel_mlp_run(work->pixel_mlp, image_of(in, image), image_of(in + 1, image), in[2].data, in[3].data,
                         in[4].data, in[5].data, output(work, image), job);
}

static int check_upsample_fuse(Work *work) {
    const Tensor *in = work->in;
    const int64_t *x = in[0].size, *below = in[1].size;
    if (in[1].rank != 4 || x[1] % OUTPUT_ROWS || x[2] % 2 || x[3] % 2) return 0;
    if (below[1] < 1 || below[1] > MAX_CHANNELS) return 0;
    work->upsample_fuse = (UpsampleFuseShape){(int)x[1], (int)below[1], (int)(x[2] / 2), (int)(x[3] / 2)};
    work->jobs = upsample_fuse_jobs(work->upsample_fuse);
    return HAS_SIZE(&in[1], x[0], below[1], x[2] / 2, x[3] / 2) && HAS_SIZE(&in[2], 2, 2, x[1], below[1]) &&
           HAS_SIZE(&in[3], x[1], x[1]) && HAS_SIZE(&in[4], x[1]);
}

static int run_upsample_fuse(const Work *work, long image, long job) {
    const Tensor *in = work->in;
    return upsample_fuse_run(work->upsample_fuse, image_of(in, image), image_of(in + 1, image), in[2].data, in[3].data,
                             in[4].data, output(work, image), job);
}

static Status *read_input(const Api *api, const KernelContext *context, size_t index, Tensor *to) {
    const Value *value;
    TensorShape *shape;
    void *data;
    Status *status = api->KernelContext_GetInput(context, index, &value);
    if (status || !value) return status ? status : api->CreateStatus(INVALID_ARGUMENT, "ccnet: an input is missing");
    if ((status = api->GetTensorTypeAndShape(value, &shape))) return status;
    status = api->GetDimensionsCount(shape, &to->rank);
    if (!status && to->rank <= MAX_RANK) status = api->GetDimensions(shape, to->size, to->rank);
    api->ReleaseTensorTypeAndShapeInfo(shape);
    if (status || (status = api->GetTensorMutableData((Value *)value, &data))) return status;
    to->data = data;
    return 0;
}

/* Return whether a tensor has a size that every operator takes as its first input. */
static int is_image(const Tensor *x) {
    return x->rank == 4 && x->size[0] >= 0 && x->size[1] >= 1 && x->size[1] <= MAX_CHANNELS && x->size[2] >= 1 &&
           x->size[2] <= MAX_SIDE && x->size[3] >= 1 && x->size[3] <= MAX_SIDE;
}

static void run_job(void *data, size_t index) {
    Work *work = data;
    if (work->operator->run(work, (long)(index / work->jobs), (long)(index % work->jobs))) work->failed = 1;
}

static Status *error(const Api *api, const Operator *operator, int code, const char *message) {
    char text[96] = "ccnet::";
    strcat(strcat(text, operator->name), message);
    return api->CreateStatus(code, text);
}

/* Run all jobs of all images on ONNX Runtime's threads. */
static Status *run_jobs(const Api *api, KernelContext *context, Work *work) {
    const Operator *operator = work->operator;
    const size_t images = (size_t)work->size[0], jobs = images * work->jobs;
    if (operator->finish && jobs && !(work->partial_sums = calloc(jobs * work->sums_per_job, sizeof *work->partial_sums)))
        return error(api, operator, FAIL, OUT_OF_MEMORY_MESSAGE);
    Status *status = api->KernelContext_ParallelFor(context, run_job, jobs, 0, work);
    for (size_t image = 0; operator->finish && !status && !work->failed && image < images; image++)
        work->failed = operator->finish(work, (long)image);
    free(work->partial_sums);
    return status || !work->failed ? status : error(api, operator, FAIL, OUT_OF_MEMORY_MESSAGE);
}

static Status *compute(void *self, KernelContext *context) {
    const Kernel *kernel = self;
    const Api *api = kernel->api;
    const Operator *operator = kernel->operator;
    Work work = {.operator = operator, .attribute = kernel->attribute};
    Value *output;
    void *data;
    Status *status;
    for (size_t index = 0; index < operator->inputs; index++)
        if ((status = read_input(api, context, index, &work.in[index]))) return status;
    memcpy(work.size, work.in[0].size, sizeof work.size);
    if (!is_image(work.in) || !operator->check(&work))
        return error(api, operator, INVALID_ARGUMENT, ": its inputs' shapes do not fit each other, or its attribute");
    if ((status = api->KernelContext_GetOutput(context, 0, work.size, 4, &output)) || !output) return status;
    if ((status = api->GetTensorMutableData(output, &data))) return status;
    work.y = data;
    return run_jobs(api, context, &work);
}

static Status *create(const CustomOp *self, const Api *api, const KernelInfo *info, void **out) {
    const Operator *operator = (const Operator *)self;
    Kernel *kernel = malloc(sizeof *kernel);
    if (!kernel) return error(api, operator, FAIL, OUT_OF_MEMORY_MESSAGE);
    kernel->api = api, kernel->operator = operator;
    *out = kernel;
    if (!operator->attribute) return 0;
    Status *status =
        operator->real ? api->KernelInfoGetAttribute_float(info, operator->attribute, &kernel->attribute.real)
                       : api->KernelInfoGetAttribute_int64(info, operator->attribute, &kernel->attribute.whole);
    if (status) free(kernel);
    return status;
}

static const char *name(const CustomOp *self) { return ((const Operator *)self)->name; }
static size_t num_inputs(const CustomOp *self) { return ((const Operator *)self)->inputs; }
static size_t num_outputs(const CustomOp *self) { return (void)self, 1; }
static const char *provider(const CustomOp *self) { return (void)self, (const char *)0; /* the CPU */ }
static int type(const CustomOp *self, size_t index) { return (void)self, (void)index, ELEMENT_FLOAT; }
static int kind(const CustomOp *self, size_t index) { return (void)self, (void)index, REQUIRED; }
static int memory(const CustomOp *self, size_t index) { return (void)self, (void)index, MEMORY_DEFAULT; }

#define BASE \
    .base = {.version = API_VERSION, .GetName = name, .GetExecutionProviderType = provider, .GetInputType = type, \
             .GetInputTypeCount = num_inputs, .GetOutputType = type, .GetOutputTypeCount = num_outputs, \
             .KernelDestroy = free, .GetInputCharacteristic = kind, .GetOutputCharacteristic = kind, \
             .GetInputMemoryType = memory, .CreateKernelV2 = create, .KernelComputeV2 = compute}

static const Operator OPERATORS[] = {
    {BASE, .name = "BandCosine", .attribute = "bands", .inputs = 3, .check = check_band_cosine, .run = run_band_cosine,
     .finish = finish_band_cosine},
    {BASE, .name = "GrSCM", .attribute = "groups", .inputs = 6, .check = check_grscm, .run = run_grscm},
    {BASE, .name = "NeSCM", .attribute = "groups", .inputs = 5, .check = check_nescm, .run = run_nescm},
    {BASE, .name = "PooledNeSCM", .attribute = "groups", .inputs = 5, .pooled = 1, .check = check_nescm,
     .run = run_nescm},
    {BASE, .name = "PAF", .attribute = "patch", .inputs = 9, .check = check_paf, .run = run_paf},
    {BASE, .name = "FFN", .attribute = "epsilon", .real = 1, .inputs = 6, .check = check_ffn, .run = run_ffn},
    {BASE, .name = "PixelMLP", .inputs = 6, .check = check_pixel_mlp, .run = run_pixel_mlp},
    /* upsample_fuse.c, under the name that graphs of version 0.1.0 use */
    {BASE, .name = "Join", .inputs = 5, .check = check_upsample_fuse, .run = run_upsample_fuse},
};

/* ONNX Runtime calls this function by name for a library that is registered with a session's options. */
EXPORT Status *RegisterCustomOps(SessionOptions *options, const ApiBase *base) {
    static Domain *domain; /* lives as long as the process, because the sessions need it */
    const Api *api = base->GetApi(API_VERSION);
    if (!api) return 0; /* older than 1.17: ONNX Runtime itself refuses a graph with these operators */
    if (domain) return api->AddCustomOpDomain(options, domain);
    Status *status = api->CreateCustomOpDomain("ccnet", &domain);
    for (size_t index = 0; !status && index < sizeof OPERATORS / sizeof *OPERATORS; index++)
        status = api->CustomOpDomain_Add(domain, &OPERATORS[index].base);
    return status ? status : api->AddCustomOpDomain(options, domain);
}
