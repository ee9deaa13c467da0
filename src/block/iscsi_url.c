/* SPDX-License-Identifier: MIT */
/* iscsi://[USER[%PASSWORD]@]HOST[:PORT]/TARGET/LUN as options of the iscsi driver, with what -iscsi says, and back. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include "base/opt.h"
#include "block/backing.h"
#include "core/cmd.h"

#define SCHEME "iscsi://"

/* ":" and the like may be written as they are or in hexadecimal; names of targets (RFC 7143, 4.2.7) have no "%" of their own. */
static void unescape(char *s)
{
    char *out = s;
    for (; *s; s++) {
        char hex[3] = { s[0] == '%' ? s[1] : 0, s[0] == '%' && s[1] ? s[2] : 0, 0 };
        if (isxdigit((unsigned char)hex[0]) && isxdigit((unsigned char)hex[1])) {
            *out++ = (char)strtol(hex, NULL, 16);
            s += 2;
        } else {
            *out++ = *s;
        }
    }
    *out = 0;
}

static bool parse(char *rest, json_t *o)
{
    char *target = strchr(rest, '/'), *lun = target ? strchr(target + 1, '/') : NULL, *at;
    if (!lun || !lun[1] || lun[1 + strspn(lun + 1, "0123456789")] || strlen(lun + 1) > 9)
        return false;
    *target++ = 0;
    *lun++ = 0;
    at = strrchr(rest, '@');
    if (at) {
        char *pass = strchr(rest, '%');
        *at = 0;
        if (pass && pass < at) {
            *pass++ = 0;
            json_object_set_new(o, "password", json_string(pass));
        }
        json_object_set_new(o, "user", json_string(rest));
        rest = at + 1;
    }
    unescape(target);
    json_object_set_new(o, "portal", json_string(rest));
    json_object_set_new(o, "target", json_string(target));
    json_object_set_new(o, "lun", json_integer(atoi(lun)));
    return *rest && *target;
}

/* ---- -iscsi: what addresses have no place for ---- */

struct iscsi_args { char *id, *user, *password, *password_secret, *initiator_name, *header_digest; uint32_t timeout; };
static const struct prop iscsi_args_props[] = {
    PROP_STR(struct iscsi_args, id, "id", 0, "Target that this is for; else all that have none of their own"),
    PROP_STR(struct iscsi_args, user, "user", 0, "User name"),
    PROP_STR(struct iscsi_args, password, "password", 0, "Password; everybody can read it in the list of processes"),
    PROP_STR(struct iscsi_args, password_secret, "password-secret", 0, "Secret with the password"),
    PROP_STR(struct iscsi_args, initiator_name, "initiator-name", 0, "Our own name"),
    PROP_STR(struct iscsi_args, header_digest, "header-digest", 0, "Checksums of headers, as of -blockdev iscsi"),
    PROP_U32(struct iscsi_args, timeout, "timeout", 0, 0, 86400, "Seconds that a command may take; 0: for ever"),
    PROP_END,
};
static json_t *args_of;                 /* of each target, "" for the rest */

static bool opt_iscsi(const char *arg, struct err *e)
{
    struct iscsi_args a = { 0 };
    json_t *o = opt_parse_flat(arg, NULL, e);
    bool ok = o && prop_set_all(iscsi_args_props, &a, NULL, o, "-iscsi", e);
    const char *id = a.id ? a.id : "";
    if (ok && json_object_get(args_of, id))
        ok = err_set(e, ERR_VALUE, "-iscsi: there are two for %s%s", *id ? "target " : "all targets", id);
    for (char *c = a.header_digest; ok && c && *c; c++)
        *c = (char)tolower((unsigned char)*c);          /* QEMU's manual has them in capitals */
    if (ok && a.header_digest)
        json_object_set_new(o, "header-digest", json_string(a.header_digest));
    if (ok) {
        args_of = args_of ? args_of : json_object();
        json_object_set(args_of, id, o);
        json_object_del(o, "id");
    }
    prop_release(iscsi_args_props, &a);
    json_decref(o);
    return ok;
}
static const struct cli_opt cli_iscsi = { .name = "iscsi", .arg = "[id=TARGET][,user=NAME][,password-secret=ID][,...]", .section = "Block",
    .phase = CLI_EARLY, .doc = "What iscsi:// addresses do not say of their target", .apply = opt_iscsi, .args = iscsi_args_props };
CLI_OPT(&cli_iscsi);

/* An address that names a user says all of him. */
static void add_args(json_t *o)
{
    json_t *a = json_object_get(args_of, json_string_value(json_object_get(o, "target"))), *v;
    const char *key;
    bool has_user = json_object_get(o, "user");
    json_object_foreach(a ? a : json_object_get(args_of, ""), key, v)
        if (!has_user || (strcmp(key, "user") && !str_starts(key, "password")))
            json_object_set(o, key, v);
}

json_t *blk_iscsi_url_opts(const char *name, struct err *e)
{
    char *rest = str_starts(name, SCHEME) ? xstrdup(name + strlen(SCHEME)) : NULL;
    json_t *o = json_pack("{s:s, s:s}", "driver", "iscsi", "transport", "tcp");
    bool ok = rest && parse(rest, o);
    free(rest);
    if (ok) {
        add_args(o);
        return o;
    }
    json_decref(o);
    err_set(e, ERR_VALUE, "this is not the address of an iSCSI disk");      /* not its text: there may be a password */
    err_hint(e, "iscsi://[USER[%%PASSWORD]@]HOST[:PORT]/TARGET/LUN");
    return NULL;
}

char *blk_iscsi_url(const char *portal, const char *target, unsigned lun)
{
    struct str u = { 0 };
    str_printf(&u, SCHEME "%s/", portal);
    for (const char *p = target; *p; p++)
        str_printf(&u, isalnum((unsigned char)*p) || strchr("-._:", *p) ? "%c" : "%%%02X", (unsigned char)*p);
    str_printf(&u, "/%u", lun);
    return u.s;
}
