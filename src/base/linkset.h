/* SPDX-License-Identifier: MIT */
/*
 * Link sets: a row defined in any folder is found by everyone who iterates over its set, with no central list.
 *   LINKSET_ADD(obj_classes, struct obj_class, &nvme_class.obj);      in a device's file
 *   LINKSET_EACH(obj_classes, struct obj_class, c) { ... }            who iterates; order is the linker's, sort where shown
 * A set needs one LINKSET_DECLARE in the header that defines its type.
 */
#ifndef BASE_LINKSET_H
#define BASE_LINKSET_H

/* ASan's red zones between rows would break the array: clang is told so; gcc leaves globals with a section alone. */
#ifdef __clang__
#define LINKSET_NO_ASAN __attribute__((no_sanitize("address")))
#else
#define LINKSET_NO_ASAN
#endif

#define LINKSET_DECLARE(set, type)                                                                            \
    extern const type *const __start_##set[] __attribute__((weak, visibility("hidden")));                     \
    extern const type *const __stop_##set[] __attribute__((weak, visibility("hidden")))
#define LINKSET_PASTE2(a, b) a##b
#define LINKSET_PASTE(a, b) LINKSET_PASTE2(a, b)
#define LINKSET_ADD(set, type, ptr)                                                                           \
    static const type *const LINKSET_PASTE(set##_row_, __COUNTER__)                                           \
        __attribute__((used, section(#set))) LINKSET_NO_ASAN = (ptr)
#define LINKSET_EACH(set, type, var)                                                                          \
    for (const type *const *var##_p_ = __start_##set, *var = NULL;                                            \
         var##_p_ < __stop_##set && (var = *var##_p_, 1); var##_p_++)

#endif
