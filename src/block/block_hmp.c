/* SPDX-License-Identifier: MIT */
/* The human monitor's way to block jobs and snapshots: each command is a QMP command with its words in order. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "block/job.h"
#include "core/cmd.h"

enum { MAX_WORDS = 8 };

/* Words in the order of their arguments; a name that begins with '-' is a flag letter and the argument that it sets. */
struct map { const char *hmp, *qmp; const char *const *words; const char *fixed; };

/* The QMP command @name with arguments @o, which is taken over. */
static void co_call(const char *name, json_t *o, struct str *out)
{
    struct err e = ERR_INIT;
    LINKSET_EACH(qmp_cmds, struct qmp_cmd, c) {
        if (strcmp(c->name, name))
            continue;
        void *args = xcalloc(1, MAX(c->args_size, (size_t)1));
        prop_defaults(c->args, args);
        json_t *r = prop_set_all(c->args, args, NULL, o, name, &e) ? c->co_run(args, &e) : NULL;
        if (!r)
            hmp_error(out, &e);
        json_decref(r);
        prop_release(c->args, args);
        free(args);
    }
    json_decref(o);
}

static bool is_flag(const struct map *m, const char *word, json_t *o)
{
    if (word[0] != '-' || strlen(word) != 2)
        return false;
    for (const char *const *w = m->words; *w; w++)
        if ((*w)[0] == '-' && (*w)[1] == word[1]) {
            const char *eq = strchr(*w + 3, '=');       /* "-n:mode=existing", "-f:force" */
            char *key = eq ? xstrndup(*w + 3, (size_t)(eq - *w - 3)) : xstrdup(*w + 3);
            json_object_set_new(o, key, eq ? json_string(eq + 1) : json_true());
            free(key);
            return true;
        }
    return false;
}

static void co_mapped(const struct map *m, const char *arg, struct str *out)
{
    char *copy = xstrdup(arg), *save = NULL;
    const char *const *next = m->words;
    json_t *o = json_object(), *fixed = m->fixed ? json_loads(m->fixed, 0, NULL) : NULL;
    bool ok = true;
    for (char *w = strtok_r(copy, " ", &save); w && ok; w = strtok_r(NULL, " ", &save)) {
        if (is_flag(m, w, o))
            continue;
        while (*next && (*next)[0] == '-')
            next++;
        ok = *next;
        if (ok)
            json_object_set_new(o, *next++, json_string(w));
    }
    if (fixed)
        json_object_update_missing(o, fixed);
    json_decref(fixed);
    free(copy);
    if (ok) {
        co_call(m->qmp, o, out);
        return;
    }
    json_decref(o);
    str_printf(out, "Error: too many words for %s\n", m->hmp);
}

#define HMP(var, nm, ar, ds, qm, fx, ...) \
    static void co_##var(const char *arg, struct str *out) \
    { \
        static const char *const words[] = { __VA_ARGS__, NULL }; \
        static const struct map m = { nm, qm, words, fx }; \
        co_mapped(&m, arg, out); \
    } \
    static const struct hmp_cmd hmp_##var = { nm, "", ar, ds, co_##var }; HMP_CMD(&hmp_##var)
HMP(stream, "block_stream", "DEVICE [SPEED [BASE]]", "copies into an image what it finds in its backing chain", "block-stream", NULL, "device", "speed", "base");
HMP(speed, "block_job_set_speed", "DEVICE SPEED", "limits how fast a job goes, in bytes a second", "block-job-set-speed", NULL, "device", "speed");
HMP(cancel, "block_job_cancel", "[-f] DEVICE", "ends a job; -f: also one that is paused, or ready", "block-job-cancel", NULL, "-f:force", "device");
HMP(complete, "block_job_complete", "DEVICE", "lets a ready job end well", "block-job-complete", NULL, "device");
HMP(pause, "block_job_pause", "DEVICE", "lets a job rest", "block-job-pause", NULL, "device");
HMP(resume, "block_job_resume", "DEVICE", "ends a job's rest", "block-job-resume", NULL, "device");
HMP(mirror, "drive_mirror", "[-n] [-f] DEVICE TARGET [FORMAT]", "keeps a new image like a drive; -n: it exists; -f: all of the chain", "drive-mirror",
    "{\"sync\": \"top\"}", "-n:mode=existing", "-f:sync=full", "device", "target", "format");
HMP(backup, "drive_backup", "[-n] [-c] DEVICE TARGET [FORMAT]", "copies what a drive holds now; -n: the image exists; -c: compressed", "drive-backup",
    "{\"sync\": \"full\"}", "-n:mode=existing", "-c:compress", "device", "target", "format");
HMP(snapshot, "snapshot_blkdev", "[-n] DEVICE FILE [FORMAT]", "puts a new image on top of a drive's; -n: it exists", "blockdev-snapshot-sync", NULL,
    "-n:mode=existing", "device", "snapshot-file", "format");
HMP(internal, "snapshot_blkdev_internal", "DEVICE NAME", "makes a snapshot inside an image", "blockdev-snapshot-internal-sync", NULL, "device", "name");
HMP(delete, "snapshot_delete_blkdev_internal", "DEVICE NAME [ID]", "deletes a snapshot inside an image", "blockdev-snapshot-delete-internal-sync", NULL,
    "device", "name", "id");
HMP(throttle, "block_set_io_throttle", "DEVICE BPS BPS_RD BPS_WR IOPS IOPS_RD IOPS_WR", "limits bytes and requests a second", "block_set_io_throttle",
    NULL, "device", "bps", "bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr");

static void co_info_jobs(const char *arg, struct str *out)
{
    bool any = false;
    for (struct job *j = NULL; (j = job_next(j)); any = true)
        str_printf(out, "Type %s, device %s: %s, completed %llu of %llu bytes, speed limit %llu bytes/s\n", job_type(j), j->id, job_status_name(j->status),
                   (unsigned long long)j->done, (unsigned long long)j->total, (unsigned long long)j->speed);
    if (!any)
        str_add(out, "No active jobs\n");
}
static const struct hmp_cmd info_jobs = { "info block-jobs", "", "", "jobs of the block layer", co_info_jobs };
HMP_CMD(&info_jobs);
