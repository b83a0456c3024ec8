/* weft explain: the table of codes, for people. */
#include "cli/command.h"
#include "cli/sheet.h"
#include "model/code.h"

#include <stdio.h>
#include <string.h>

static void explain_one(const struct code_info *c)
{
    printf("%s %s\n\n%s\n\nWhat to do: %s\n\n", c->id, c->name, c->what, c->remedy);
    if (c->http != 0)
        printf("HTTP status %u, gRPC status %u, Proxy-Status error=%s%s\n", c->http, c->grpc,
               c->proxy_status, c->closes ? ", the HTTP/1.1 connection is closed" : "");
    else
        printf("No answer is possible: the stream or connection is cut (gRPC status %u).\n",
               c->grpc);
}

static json_t *explain_row(const struct code_info *c)
{
    return json_pack("{s:s,s:s,s:i,s:i,s:s,s:s,s:s}", "id", c->id, "name", c->name, "http",
                     (int)c->http, "grpc", (int)c->grpc, "proxy_status", c->proxy_status,
                     "what", c->what, "remedy", c->remedy);
}

int command_explain(const struct command *self, int argc, char **argv)
{
    const char *output = NULL;
    const struct opt table[] = {OPT_OUTPUT(&output), OPT_TABLE_END};
    enum sheet_format format;
    struct trouble why = {{0}};
    struct sheet s;
    enum code found = CODE_NONE;
    int code;

    if (!command_options(self, table, &argc, argv, NULL, &code))
        return code;
    code = command_positional(self, argc, 0, 1);
    if (code != 0)
        return code;
    if (sheet_format_parse(output, &format, &why) != OK)
        return command_usage(self, "%s", why.text);
    if (argc == 2) {
        found = code_find(slice_str(argv[1]));
        if (found == CODE_NONE) {
            fprintf(stderr, "weft: there is no code %s; \"weft explain\" lists all\n", argv[1]);
            return CLI_FAILED;
        }
        if (format == SHEET_TABLE) {
            explain_one(code_info(found));
            return CLI_OK;
        }
    }
    sheet_init(&s);
    sheet_column(&s, "id");
    sheet_column(&s, "name");
    sheet_column(&s, "http");
    sheet_column(&s, "what");
    for (int i = CODE_NONE + 1; i < CODE_COUNT; i++)
        if (found == CODE_NONE || i == (int)found)
            sheet_add(&s, explain_row(code_info((enum code)i)));
    sheet_print(&s, format, NULL, stdout);
    sheet_done(&s);
    return CLI_OK;
}
