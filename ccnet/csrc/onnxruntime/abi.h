/* The part of ONNX Runtime's C interface that the operators use, declared by hand, because no package registry has its
 * headers. Names are those of onnxruntime_c_api.h without the prefix Ort. Its binary interface only grows: a function's
 * place in the table stays the same as in the version that introduced it, here 1.17 at the latest.
 *
 * tests/ccnet/csrc/test_abi.py compares these declarations with the real header where it is installed.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>

enum {
    API_VERSION = 17,
    /* OrtErrorCode */ FAIL = 1, INVALID_ARGUMENT = 2,
    /* ONNXTensorElementDataType */ ELEMENT_FLOAT = 1,
    /* OrtCustomOpInputOutputCharacteristic */ REQUIRED = 0,
    /* OrtMemType */ MEMORY_DEFAULT = 0,
};

/* Types whose contents only ONNX Runtime knows. */
typedef struct Status Status; /* null for success; ONNX Runtime frees it */
typedef struct Value Value;
typedef struct TensorShape TensorShape; /* OrtTensorTypeAndShapeInfo */
typedef struct KernelInfo KernelInfo;
typedef struct KernelContext KernelContext;
typedef struct Domain Domain; /* OrtCustomOpDomain */
typedef struct SessionOptions SessionOptions;

typedef struct Api Api;
typedef struct CustomOp CustomOp;

/* OrtApi: a table of functions. Functions that are not used are counted only. */
struct Api {
    Status *(*CreateStatus)(int code, const char *message);
    void *unused_1[25];
    Status *(*CreateCustomOpDomain)(const char *domain, Domain **out);
    Status *(*CustomOpDomain_Add)(Domain *domain, const CustomOp *op);
    Status *(*AddCustomOpDomain)(SessionOptions *options, Domain *domain);
    void *unused_29[22];
    Status *(*GetTensorMutableData)(Value *value, void **out);
    void *unused_52[9];
    Status *(*GetDimensionsCount)(const TensorShape *shape, size_t *out);
    Status *(*GetDimensions)(const TensorShape *shape, int64_t *sizes, size_t count);
    void *unused_63[2];
    Status *(*GetTensorTypeAndShape)(const Value *value, TensorShape **out);
    void *unused_66[19];
    Status *(*KernelInfoGetAttribute_float)(const KernelInfo *info, const char *name, float *out);
    Status *(*KernelInfoGetAttribute_int64)(const KernelInfo *info, const char *name, int64_t *out);
    void *unused_87[3];
    Status *(*KernelContext_GetInput)(const KernelContext *context, size_t index, const Value **out);
    Status *(*KernelContext_GetOutput)(KernelContext *context, size_t index, const int64_t *sizes, size_t count,
                                       Value **out);
    void *unused_92[7];
    void (*ReleaseTensorTypeAndShapeInfo)(TensorShape *shape);
    void *unused_100[174];
    Status *(*KernelContext_ParallelFor)(const KernelContext *context, void (*function)(void *data, size_t index),
                                         size_t total, size_t batches, void *data);
};

/* OrtApiBase. GetApi returns null where ONNX Runtime is older than the version. */
typedef struct { const Api *(*GetApi)(uint32_t version); const char *(*GetVersionString)(void); } ApiBase;

/* OrtCustomOp. Functions that ONNX Runtime does not call beside CreateKernelV2 and KernelComputeV2 are null. */
struct CustomOp {
    uint32_t version;
    void *CreateKernel;
    const char *(*GetName)(const CustomOp *self);
    const char *(*GetExecutionProviderType)(const CustomOp *self);
    int (*GetInputType)(const CustomOp *self, size_t index);
    size_t (*GetInputTypeCount)(const CustomOp *self);
    int (*GetOutputType)(const CustomOp *self, size_t index);
    size_t (*GetOutputTypeCount)(const CustomOp *self);
    void *KernelCompute;
    void (*KernelDestroy)(void *kernel);
    int (*GetInputCharacteristic)(const CustomOp *self, size_t index);
    int (*GetOutputCharacteristic)(const CustomOp *self, size_t index);
    int (*GetInputMemoryType)(const CustomOp *self, size_t index);
    void *variadic[4];
    Status *(*CreateKernelV2)(const CustomOp *self, const Api *api, const KernelInfo *info, void **kernel);
    Status *(*KernelComputeV2)(void *kernel, KernelContext *context);
    void *later[7];
};
