# SPDX-License-Identifier: MIT
# Thin rules over Meson and Ninja. `make demo` and `make check` need nothing but Debian 12 and root or sudo.
BUILD     ?= build
BUILDTYPE ?= debugoptimized
PREFIX    ?= /usr/local
DESTDIR   ?=
JOBS      ?= $(shell nproc)
export PATH := /usr/lib/ccache:$(PATH)
export CCACHE_BASEDIR := $(CURDIR)
export CCACHE_NOHASHDIR := 1

.PHONY: all build deps guest check nightly demo docs bench bench-cpu install clean distclean help
all: build

deps:            # install the Debian packages that are missing
	@scripts/deps

$(BUILD)/build.ninja: meson.build meson_options.txt
	@scripts/deps
	@[ -f $@ ] || meson setup $(BUILD) --buildtype=$(BUILDTYPE) --prefix=$(PREFIX)

build: $(BUILD)/build.ninja   # the program and its tools, into build
	@ninja -C $(BUILD) -j$(JOBS)

guest: deps      # fetch the guest: Debian's riscv64 kernel and tools, into build/guest
	@scripts/guest-fetch

check: deps build  # every test; ends with one line "N passed, N failed, N skipped"
	@tests/run $(TESTS)

nightly: deps build  # what takes too long for check: power cuts, resets, random commands by the thousand, stores and reservations of harts for minutes, Debian's programs
	@BP_CUTS=10800 BP_LITMUS_MS=60000 BP_ROUNDS=1000 BP_FUZZ=20000 BP_IMG_CUTS=50 BP_FUZZ_ROUNDS=500 BP_FUZZ_SECONDS=180 BP_TIMEOUT_SCALE=30 tests/run tests/unit/test_qcow2_cut.c \
		tests/unit/test_formats_fuzz.c tests/unit/test_qcow2_fuzz.c \
		tests/unit/test_nvme_kv.c tests/unit/test_jit_litmus.c tests/unit/test_nvme_life.c tests/proto/test_nvme_fuzz.py tests/proto/test_scsi_fuzz.py \
		tests/proto/test_qmp_random.py tests/img/test_vhost_user_fuzz.py tests/img/test_img_cut.py
	@tests/run nightly

demo: deps build guest  # boot Debian; a shell on a terminal, else a short tour
	@scripts/demo

docs: build     # write docs/devices.md from the tables of the program
	@$(BUILD)/backplane -manual > docs/devices.md.new && mv docs/devices.md.new docs/devices.md

bench: deps build guest  # beside Debian's qemu-system-riscv64; BENCH="cpu img" measures a part
	@bench/run $(BENCH)

bench-cpu: deps build guest  # what bears on the CPU alone: small programs, Debian's programs, -icount
	@bench/run cpu programs icount

install: build   # program, tools and manual, into PREFIX (/usr/local), below DESTDIR if there is one
	@DESTDIR=$(DESTDIR) meson install -C $(BUILD) --no-rebuild

clean:           # what was built; the fetched guest stays
	@[ ! -f $(BUILD)/build.ninja ] || ninja -C $(BUILD) -t clean
	@rm -rf build-gcc build-clang build-asan build-tsan

distclean:       # everything, the guest too
	@rm -rf $(BUILD) build-gcc build-clang build-asan build-tsan

help:
	@sed -n 's/^\([a-z-]*\):.* # */\1	/p' Makefile
