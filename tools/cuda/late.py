"""late.py FOLDER: CUDA's libraries as they may be found when a program runs, not when it is linked.

A program that is linked with CUDA's libraries does not start where they are missing. This makes static libraries of the same
names, in FOLDER/lib, whose functions look for the real library when they are first called and jump there; without it they
return the library's own word for "there is no device". Folders in FOURSTEP_CUDA_LIBS, with colons between, are looked through
first. The functions are those that cudarc declares, of the version in Cargo.lock; `tools/cuda/kit` calls this.
"""
import os
import re
import subprocess
import sys

# Name for the linker; cudarc's name; the library; what its functions return when it is missing (CUDA_ERROR_NO_DEVICE and so on).
LIBRARIES = [
    ("cuda", "driver", "libcuda.so.1", 100),
    ("cublas", "cublas", "libcublas.so.13", 1),
    ("cublasLt", "cublaslt", "libcublasLt.so.13", 1),
    ("curand", "curand", "libcurand.so.10", 203),
    ("nvrtc", "nvrtc", "libnvrtc.so.13", 1),
    ("cudnn", "cudnn", "libcudnn.so.9", 1001),
]
INTEGERS = ["rdi", "rsi", "rdx", "rcx", "r8", "r9", "rax"]


def functions(sources):
    """The names of all functions that Rust files declare as those of a CUDA library."""
    names = set()
    for root, _, files in os.walk(sources):
        for file in files:
            with open(os.path.join(root, file)) as source:
                names.update(re.findall(r"\bfn ((?:cu|nvrtc|curand|cublas|cudnn)[A-Za-z0-9_]+)", source.read()))
    return sorted(names - {"culib"})


def jumps(library, names):
    """Each function jumps to where a table says: at first to its own few instructions that have `load` correct the table.
    Every register that may hold an argument is as it was when the real function begins (System V ABI, x86-64)."""
    lines = ['.section .note.GNU-stack,"",@progbits', ".data", f".globl late_{library}", ".balign 8", f"late_{library}:"]
    lines += [f"  .quad late_{library}_{number}" for number in range(len(names))]
    lines += [".text"]
    for number, name in enumerate(names):
        lines += [
            f".globl {name}", f".type {name},@function", f"{name}:", f"  jmp *late_{library}+{8 * number}(%rip)",
            f"late_{library}_{number}:", f"  pushq ${number}", f"  jmp late_{library}_first",
        ]
    lines += [f"late_{library}_first:", "  pushq %rbp", "  movq %rsp, %rbp", "  subq $208, %rsp", "  andq $-16, %rsp"]
    lines += [f"  movq %{register}, {8 * place}(%rsp)" for place, register in enumerate(INTEGERS)]
    lines += [f"  movups %xmm{number}, {64 + 16 * number}(%rsp)" for number in range(8)]
    lines += ["  movq 8(%rbp), %rdi", f"  call late_{library}_load", "  movq %rax, %r11"]
    lines += [f"  movq {8 * place}(%rsp), %{register}" for place, register in enumerate(INTEGERS)]
    lines += [f"  movups {64 + 16 * number}(%rsp), %xmm{number}" for number in range(8)]
    lines += ["  movq %rbp, %rsp", "  popq %rbp", "  addq $8, %rsp", "  jmp *%r11"]
    return "\n".join(lines) + "\n"


def loader(library, file, missing, names):
    quoted = ", ".join(f'"{name}"' for name in names)
    return f"""
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern void *late_{library}[];
static const char *const names[] = {{{quoted}}};

static int missing(void) {{ return {missing}; }}

static void *library(void) {{
  static void *found;
  static int looked;
  const char *folders = getenv("FOURSTEP_CUDA_LIBS");
  if (looked) return found;
  while (!found && folders && *folders) {{
    const size_t length = strcspn(folders, ":");
    char path[4096];
    if (length < 4000 && snprintf(path, sizeof path, "%.*s/{file}", (int)length, folders) > 0)
      found = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
    folders += length + (folders[length] == ':');
  }}
  if (!found) found = dlopen("{file}", RTLD_NOW | RTLD_GLOBAL);
  looked = 1;
  return found;
}}

__attribute__((visibility("hidden"))) void *late_{library}_load(long number) {{
  void *function = library() ? dlsym(library(), names[number]) : NULL;
  return late_{library}[number] = function ? function : (void *)missing;
}}
"""


def main(folder, cudarc):
    os.makedirs(f"{folder}/lib", exist_ok=True)
    for library, module, file, missing in LIBRARIES:
        names = functions(f"{cudarc}/src/{module}/sys")
        place = f"{folder}/{library}"
        with open(f"{place}.S", "w") as source:
            source.write(jumps(library, names))
        with open(f"{place}.c", "w") as source:
            source.write(loader(library, file, missing, names))
        for ending in ("S", "c"):
            subprocess.run(["cc", "-O2", "-fPIC", "-c", f"{place}.{ending}", "-o", f"{place}.{ending}.o"], check=True)
        subprocess.run(["ar", "rcs", f"{folder}/lib/lib{library}.a", f"{place}.S.o", f"{place}.c.o"], check=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
