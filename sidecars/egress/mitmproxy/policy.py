"""The policy as the add-on sees it: libbottle-policy.so through ctypes (controller/policy/c_api.h).

What decides exists once, in C++; nothing here knows what a route is.
"""

from __future__ import annotations

import ctypes
import functools
import json
import os
from typing import Any

Verdict = dict[str, Any]

LIBRARY = os.environ.get("BOT_BOTTLE_POLICY_LIBRARY", "/opt/bot-bottle/lib/libbottle-policy.so")


class PolicyError(Exception):
    """A table that does not load, or an answer of the library that is none."""


@functools.cache
def _library() -> ctypes.CDLL:
    lib = ctypes.CDLL(LIBRARY)
    # Texts come back as void*, not char*: ctypes would copy a char* and lose the pointer that has to be freed.
    lib.bottle_policy_load.restype = ctypes.c_void_p
    lib.bottle_policy_load.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.POINTER(ctypes.c_void_p)]
    lib.bottle_policy_unload.restype = None
    lib.bottle_policy_unload.argtypes = [ctypes.c_void_p]
    lib.bottle_policy_free.restype = None
    lib.bottle_policy_free.argtypes = [ctypes.c_void_p]
    lib.bottle_policy_info.restype = ctypes.c_void_p
    lib.bottle_policy_info.argtypes = [ctypes.c_void_p]
    lib.bottle_policy_judge_connect.restype = ctypes.c_void_p
    lib.bottle_policy_judge_connect.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int]
    lib.bottle_policy_judge_request.restype = ctypes.c_void_p
    lib.bottle_policy_judge_request.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t]
    lib.bottle_policy_address_allowed.restype = ctypes.c_int
    lib.bottle_policy_address_allowed.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    lib.bottle_policy_is_credential_header.restype = ctypes.c_int
    lib.bottle_policy_is_credential_header.argtypes = [ctypes.c_char_p]
    return lib


def _take(pointer: int | None) -> str:
    if not pointer:
        raise PolicyError("the policy library gave no answer")
    try:
        return ctypes.string_at(pointer).decode()
    finally:
        _library().bottle_policy_free(pointer)


def text_of(raw: bytes) -> str:
    """The bytes of a request as the library wants them: UTF-8, or else one code point a byte."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")


@functools.lru_cache(maxsize=1024)
def is_credential_header(lower_case_name: str) -> bool:
    return bool(_library().bottle_policy_is_credential_header(lower_case_name.encode()))


class Table:
    """One immutable route table."""

    def __init__(self, text: bytes) -> None:
        self._handle: int | None = None
        error = ctypes.c_void_p()
        handle = _library().bottle_policy_load(text, len(text), ctypes.byref(error))
        if not handle:
            raise PolicyError(_take(error.value))
        self._handle = handle
        self.info: dict[str, Any] = json.loads(_take(_library().bottle_policy_info(handle)))

    def __del__(self) -> None:
        if self._handle:
            _library().bottle_policy_unload(self._handle)

    def judge_connect(self, host: str, port: int) -> Verdict:
        # A NUL would end the C string early, and another host than the one dialled would be judged.
        safe = host.replace("\0", "\ufffd").encode("utf-8", "replace")
        return self._verdict(_library().bottle_policy_judge_connect(self._handle, safe, port))

    def judge_request(self, request: dict[str, Any]) -> Verdict:
        text = json.dumps(request).encode()
        return self._verdict(_library().bottle_policy_judge_request(self._handle, text, len(text)))

    def address_allowed(self, address: str) -> bool:
        return bool(_library().bottle_policy_address_allowed(self._handle, address.encode()) == 1)

    @staticmethod
    def _verdict(pointer: int | None) -> Verdict:
        verdict: Verdict = json.loads(_take(pointer))
        if not isinstance(verdict.get("allowed"), bool):
            raise PolicyError("the policy library gave no verdict")
        return verdict
