/* SPDX-License-Identifier: MIT */
/* The file in which registrations and a reservation outlive the power (SPC-5, 5.14.5): JSON, replaced as a whole. */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/file_replace.h"
#include "hw/scsi/scsi_lu.h"

/* Numbers of 64 bits are text: JSON's have 63. */
static json_t *hex64(uint64_t v)
{
    char text[19];

    snprintf(text, sizeof text, "0x%016" PRIx64, v);
    return json_string(text);
}

static bool from_hex64(const json_t *v, uint64_t *out)
{
    const char *text = json_string_value(v);
    char *end;

    if (!text || strncmp(text, "0x", 2) || strlen(text) != 18)
        return false;
    *out = strtoull(text, &end, 16);
    return !*end;
}

int scsi_pr_file_save(const char *path, const struct scsi_pr *p)
{
    json_t *list = json_array(), *doc = NULL;
    char *text;
    int e;

    for (unsigned i = 0; p->aptpl && i < SCSI_PR_MAX; i++)
        if (p->reg[i].key)
            json_array_append_new(list, json_pack("{s:o, s:o, s:i, s:b}", "key", hex64(p->reg[i].key),
                                                  "initiator", hex64(p->reg[i].nexus.initiator), "port", (int)p->reg[i].nexus.port,
                                                  "holder", p->type && p->holder == i));
    doc = json_pack("{s:i, s:i, s:o}", "version", 1, "type", p->aptpl ? (int)p->type : 0, "registrations", list);
    text = json_dumps(doc, JSON_INDENT(1));
    e = file_replace(path, text, strlen(text));
    free(text);
    json_decref(doc);
    return e;
}

static bool load_registrations(const json_t *list, struct scsi_pr *p)
{
    json_t *o;
    size_t i;

    if (!json_is_array(list) || json_array_size(list) > SCSI_PR_MAX)
        return false;
    json_array_foreach(list, i, o) {
        struct scsi_pr_reg *reg = &p->reg[i];
        json_int_t port = json_integer_value(json_object_get(o, "port"));

        if (!from_hex64(json_object_get(o, "key"), &reg->key) || !reg->key || port < 1 || port > UINT16_MAX ||
            !from_hex64(json_object_get(o, "initiator"), &reg->nexus.initiator))
            return false;
        reg->nexus.port = (uint16_t)port;
        if (json_is_true(json_object_get(o, "holder")))
            p->holder = (uint8_t)i;
    }
    p->aptpl = json_array_size(list) != 0;
    return true;
}

bool scsi_pr_file_load(const char *path, struct scsi_pr *p, struct err *e)
{
    json_error_t je;
    json_t *doc;
    json_int_t type;
    bool ok;

    *p = (struct scsi_pr){ 0 };
    if (!file_replace_possible(path, "pr_file", e))
        return false;
    if (access(path, F_OK) && errno == ENOENT)
        return true;
    doc = json_load_file(path, 0, &je);
    if (!doc)
        return err_set(e, ERR_VALUE, "pr_file '%s' is no file of reservations: %s", path, je.text);
    type = json_integer_value(json_object_get(doc, "type"));
    ok = json_integer_value(json_object_get(doc, "version")) == 1 && type >= 0 && type <= PR_EXCLUSIVE_AR &&
         load_registrations(json_object_get(doc, "registrations"), p);
    json_decref(doc);
    if (!ok)
        return err_set(e, ERR_VALUE, "pr_file '%s' is no file of reservations: version, type or a registration makes no sense", path);
    p->type = (uint8_t)type;
    return scsi_pr_state.post_load(p, e) || err_prefix(e, "pr_file '%s'", path);
}
