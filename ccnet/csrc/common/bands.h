/* NeSCM's order of bands: four streams (ccnet/ops/scan.py) and the six window slots of its output gates
 * (ccnet/ops/output_gate.py). */
#pragma once

#include "common/conv3x3.h"
#include "common/simd.h"

#define MAX_HEADS 4 /* kernels are compiled for 1, 2 and 4 heads */
#define MAX_BANDS 64
#define STREAMS 4

/* The band that stream (direction, lead) reads at a step, -1 after the last band: the window's centre, or with lead 1
 * the slot ahead of it. */
INLINE int band_of(int bands, int direction, int lead, int step) {
    int position = step + lead;
    return position >= bands ? -1 : direction ? bands - 1 - position : position;
}

/* For the slots of the forward, then of the backward window: the stream that a slot reads, and the offset of its band
 * from the window's band:
 *
 *     forward   slot 0: stream 0, a band earlier   1: stream 0   2: stream 1
 *     backward  slot 0: stream 3                   1: stream 2   2: stream 2, a band later */
static const struct { int stream, shift; } SLOTS[6] = {{0, -1}, {0, 0}, {1, 0}, {3, 0}, {2, 0}, {2, 1}};

/* The index at which the 3x3 filter of output head o and input head i for a slot begins in the output gates' weights
 * (direction, output head, input head, slot, row, column). */
INLINE long filter_index(int heads, int slot, int o, int i) {
    return (((long)(slot / 3 * heads + o) * heads + i) * 3 + slot % 3) * TAPS;
}
