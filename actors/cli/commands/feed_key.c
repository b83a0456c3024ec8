/* weft feed-key: who may read the telemetry feed. */
#include "cli/client.h"
#include "cli/command.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

static void feed_key_print(const struct wire_feed_key_answer *a, const char *endpoint,
                           bool json)
{
    json_t *o;

    if (!json) {
        printf("endpoint    %s\nserver_key  %.*s\npublic_key  %.*s\nsecret_key  %.*s\n",
               endpoint, SLICE_FMT(a->server_key), SLICE_FMT(a->public_key),
               SLICE_FMT(a->secret_key));
        fprintf(stderr, "The secret key is shown this once; docs/feed.md has a subscriber.\n");
        return;
    }
    o = json_pack("{s:s,s:s%,s:s%,s:s%}", "endpoint", endpoint, "server_key", a->server_key.p,
                  a->server_key.n, "public_key", a->public_key.p, a->public_key.n, "secret_key",
                  a->secret_key.p, a->secret_key.n);
    (void)json_dumpf(o, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(o);
}

int command_feed_key(const struct command *self, int argc, char **argv)
{
    const char *run = NULL, *output = NULL;
    bool revoke = false;
    const struct opt table[] = {
        {OPT_FLAG, 0, "revoke", NULL, "take the key of that name away", &revoke},
        {OPT_TEXT, 'o', "output", "FORMAT", "table (default) or json", &output},
        OPT_RUN(&run),
        OPT_TABLE_END,
    };
    struct wire_feed_key ask = {0};
    const struct wire_msg *answer;
    struct client *c = NULL;
    struct trouble why = {{0}};
    char bridge[PLAN_ADDRESS_TEXT], endpoint[80];
    struct mesh m;
    int code;
    err_t e;

    if (!command_options(self, table, &argc, argv, NULL, &code))
        return code;
    code = command_positional(self, argc, 1, 1);
    if (code != 0)
        return code;
    ask.name = slice_str(argv[1]);
    ask.is_revoke = revoke;
    e = client_begin(command_run_dir(run), &m, &c, &why);
    if (e == OK)
        e = client_ask(c, WIRE_feed_key, &ask, WIRE_feed_key_answer, CLIENT_WAIT_MS, &answer,
                       &why);
    if (e == OK && !revoke) {
        plan_bridge(&m.plan, bridge);
        (void)snprintf(endpoint, sizeof endpoint, "tcp://%s:8088", bridge);
        feed_key_print(&answer->body.feed_key_answer, endpoint,
                       output != NULL && strcmp(output, "json") == 0);
    }
    client_close(&c);
    return trouble_exit(&why, e);
}
