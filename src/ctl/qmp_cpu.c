/* SPDX-License-Identifier: MIT */
/* QMP commands about CPUs. */
#include <stdio.h>
#include "core/cmd.h"
#include "core/debug.h"

static json_t *co_query_cpus(void *args, struct err *e)
{
    json_t *list = json_array();
    for (unsigned i = 0; debug_ops && i < debug_ops->n_cpus(); i++) {
        char path[48];
        snprintf(path, sizeof path, "/machine/soc0/harts[%u]", i);
        json_array_append_new(list, json_pack("{s:i, s:s, s:i, s:s, s:{s:i}}", "cpu-index", (int)i, "qom-path", path, "thread-id",
                                              debug_ops->thread_id(i), "target", "riscv64", "props", "core-id", (int)i));
    }
    return list;
}
static const struct qmp_cmd cmd_query_cpus = { "query-cpus-fast", "The CPUs and their host threads", .co_run = co_query_cpus,
    .says = "[{cpu-index:int, qom-path:str, thread-id:int, target:str, props:{core-id:int}}]" };
QMP_CMD(&cmd_query_cpus);
