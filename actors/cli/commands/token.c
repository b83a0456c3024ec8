/* weft token: a one-time join token for a pod that `weft run` does not make. */
#include "cli/client.h"
#include "cli/command.h"

#include <stdio.h>
#include <string.h>

int command_token(const struct command *self, int argc, char **argv)
{
    const char *run = NULL, *as = NULL, *slash, *account;
    uint64_t ttl_ms = 600000;
    bool anchors = false;
    const struct opt table[] = {
        {OPT_TEXT, 0, "as", "NS/ACCOUNT", "whom it is for (ACCOUNT alone: namespace default)",
         &as},
        {OPT_MS, 0, "ttl", "TIME", "how long it can be used (10m)", &ttl_ms},
        {OPT_FLAG, 0, "anchors", NULL, "print the broker's key and the trust anchors too",
         &anchors},
        OPT_RUN(&run),
        OPT_TABLE_END,
    };
    struct wire_token ask = {.namespace = SLICE_LIT("default")};
    const struct wire_token_answer *got;
    const struct wire_msg *answer;
    struct client *c = NULL;
    struct trouble why = {{0}};
    struct mesh m;
    int code;
    err_t e;

    if (!command_options(self, table, &argc, argv, NULL, &code))
        return code;
    code = command_positional(self, argc, 0, 0);
    if (code != 0)
        return code;
    if (as == NULL)
        return command_usage(self, "--as is missing");
    slash = strchr(as, '/');
    account = slash != NULL ? slash + 1 : as;
    if (slash != NULL)
        ask.namespace = slice(as, (size_t)(slash - as));
    ask.service_account = slice_str(account);
    if (ttl_ms == 0 || ttl_ms > UINT32_MAX)
        return command_usage(self, ttl_ms == 0 ? "--ttl is no time" : "--ttl is too long");
    ask.ttl_ms = (uint32_t)ttl_ms;
    e = client_begin(command_run_dir(run), &m, &c, &why);
    if (e == OK)
        e = client_ask(c, WIRE_token, &ask, WIRE_token_answer, CLIENT_WAIT_MS, &answer, &why);
    if (e == OK) {
        got = &answer->body.token_answer;
        printf("%.*s\n", SLICE_FMT(got->token));
        if (anchors)
            printf("%.*s\n%.*s", SLICE_FMT(got->broker_key), SLICE_FMT(got->anchors));
    }
    client_close(&c);
    return trouble_exit(&why, e);
}
