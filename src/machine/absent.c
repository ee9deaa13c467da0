/* SPDX-License-Identifier: MIT */
/* Boards, models of CPUs and options of boards that scripts for QEMU name and that are not here: what each would need, and what does its work. */
#include "cpu/riscv/hart.h"
#include "machine/machine.h"

#define BOARD(name, what) OBJ_ABSENT(name, &machine_base_class, what)
#define VIRT_DOES "a model of that board; -M virt is a board for any riscv64 guest"
#define OTHER "another architecture than riscv64; -M virt is a board of ours"
BOARD("amd-microblaze-v-generic", VIRT_DOES);
BOARD("microchip-icicle-kit", VIRT_DOES);
BOARD("shakti_c", VIRT_DOES);
BOARD("sifive_e", VIRT_DOES);
BOARD("sifive_u", VIRT_DOES);
BOARD("spike", VIRT_DOES);
BOARD("xiangshan-kunminghu", VIRT_DOES);
BOARD("opentitan", OTHER);
BOARD("microvm", OTHER);
BOARD("pc", OTHER);
BOARD("q35", OTHER);

#define CPU(name, what) OBJ_ABSENT(name, &rv_cpu_class, what)
#define EXTENSIONS "extensions that are not in this build; max has all that there are, -cpu max,help lists them"
#define MODEL "a model of that CPU; sifive-u54 and veyron-v1 are two of makers, max has all extensions that there are"
CPU("host", "KVM; max has all extensions that there are");
CPU("rv32", "32-bit harts; rv64 is the base of ours");
CPU("rv32i", "32-bit harts; rv64i is the base of ours");
CPU("rv32e", "32-bit harts; rv64i is the base of ours");
CPU("rv64e", "the base with 16 registers; rv64i has 32");
CPU("rva22u64", "a profile for user mode alone; rva22s64 is the one for systems");
CPU("rva23u64", EXTENSIONS);
CPU("rva23s64", EXTENSIONS);
CPU("lowrisc-ibex", "32-bit harts; rv64 is the base of ours");
CPU("shakti-c", MODEL);
CPU("sifive-e31", "32-bit harts; rv64 is the base of ours");
CPU("sifive-e51", MODEL);
CPU("sifive-u34", "32-bit harts; rv64 is the base of ours");
CPU("thead-c906", MODEL);
CPU("tt-ascalon", MODEL);
CPU("xiangshan-kunminghu", MODEL);
CPU("xiangshan-nanhu", MODEL);
CPU("x-rv128", "128-bit harts; rv64 is the base of ours");

#define LEAVE "leave it out: "
PROP_ABSENT("virt-machine", "iommu-sys", "an IOMMU is not in this build");
PROP_ABSENT("machine", "confidential-guest-support", "encrypted memory is not in this build");
PROP_ABSENT("machine", "memory-encryption", "encrypted memory is not in this build");
PROP_ABSENT("machine", "dt-compatible", "the device tree is the board's own; -M dumpdtb= and -dtb change it");
PROP_ABSENT("machine", "phandle-start", "the device tree is the board's own; -M dumpdtb= and -dtb change it");
PROP_ABSENT("machine", "kernel-irqchip", LEAVE "interrupt controllers are never the host kernel's");
PROP_ABSENT("machine", "kvm-type", LEAVE "KVM is not in this build");
PROP_ABSENT("machine", "hmat", LEAVE "this machine has one node of memory");
PROP_ABSENT("machine", "suppress-vmdesc", LEAVE "migration is not in this build");
PROP_ABSENT("machine", "aux-ram-share", LEAVE "nothing but main memory is handed to others; share=on of its back end says it");
PROP_ABSENT("machine", "shim", "a start through UEFI's shim is not in this build");
