"""A camera, or a video, through OpenCV: python examples/camera.py [SOURCE [ARTIFACTS]]"""

import sys

import cv2
import numpy as np

from ccnet.runtime import Reconstructor

source, artifacts = sys.argv[1:] + ["0", "build/ccnet"][len(sys.argv) - 1 :]
camera = cv2.VideoCapture(int(source) if source.isdecimal() else source)
if not camera.isOpened():
    sys.exit(f"{source}: neither a camera nor a video that OpenCV can open")
cube = None
with Reconstructor.open(artifacts, input_space="srgb") as reconstruct:  # a gamma-encoded camera or video
    while (got := camera.read())[0]:
        frame = cv2.cvtColor(got[1], cv2.COLOR_BGR2RGB)
        if cube is None or cube.shape[1:] != frame.shape[:2]:
            cube = np.empty((31, *frame.shape[:2]), np.float32)
        reconstruct(frame, out=cube)  # reflectance-like, 400 … 700 nm
        print("mean spectrum:", np.round(cube[::5].mean(axis=(1, 2)), 3))
