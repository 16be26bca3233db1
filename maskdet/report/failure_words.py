"""What failure codes mean to someone who looks after cameras."""

from __future__ import annotations

FAILURE_WORDS = {
    "path_mismatch": "the file's name or folder is not as agreed",
    "bad_manifest_row": "the list of images has a wrong row",
    "not_allowed": "the list names an image outside the agreed places",
    "not_found": "the image was gone before it could be read",
    "access_denied": "the store did not hand out the image",
    "not_a_file": "something that is not a file stands in the image's place",
    "read_error": "the store did not answer",
    "empty_file": "the file is empty",
    "too_many_bytes": "the file is too large",
    "not_an_image": "the file is not an image",
    "corrupt_image": "a part of the image is missing or broken",
    "not_a_video": "the file is called a video, but is none that can be read",
    "truncated_video": "the video is cut short or was still being written, and cannot be read without its end",
    "no_pictures": "the video has sound, but no pictures",
    "corrupt_video": "a stretch of the video is missing or broken; the rest of it counts",
    "too_many_pixels": "the image has too many pixels",
    "too_few_pixels": "the image is too small",
    "unsupported_mode": "the image's colours are of a kind that cannot be read",
    "unsupported_format": "the image is in a format that cannot be read here",
    "out_of_memory": "the image took more memory than there was",
    "decode_timeout": "the image took too long to read",
    "decoder_crashed": "the image made the program that reads it crash",
    "inference_error": "the model could not work on the image",
    "not_finite": "the model gave no answer that is a number",
}
"""Failure code → what it means."""
