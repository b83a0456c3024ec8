/* weft version */
#include "cli/command.h"

#include <stdio.h>

int command_version(const struct command *self, int argc, char **argv)
{
    const struct opt table[] = {OPT_TABLE_END};
    int code;

    if (!command_options(self, table, &argc, argv, NULL, &code))
        return code;
    printf("weft %s\n", WEFT_VERSION);
    return CLI_OK;
}
