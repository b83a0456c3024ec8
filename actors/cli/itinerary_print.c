/* An itinerary for people. */
#include "cli/itinerary.h"

#include <string.h>

static const char *str(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));

    return s != NULL ? s : "";
}

static void print_destination(const json_t *i, FILE *to)
{
    const json_t *d = json_object_get(i, "destination");

    if (strcmp(str(d, "kind"), "unknown") == 0)
        fprintf(to, "Not a service or pod of this mesh: it goes to the address as it is.\n");
    else
        fprintf(to, "%s %s, protocol %s%s\n", str(d, "kind"), str(d, "service"),
                str(d, "protocol"),
                json_is_true(json_object_get(d, "profile")) ? ", by its ServiceProfile" : "");
}

static void print_rules(const json_t *i, FILE *to)
{
    const json_t *list = json_object_get(i, "rules");
    size_t n = json_array_size(list);

    if (n > 0)
        fprintf(to, "\nRules\n");
    for (size_t k = 0; k < n; k++) {
        const json_t *row = json_array_get(list, k);
        bool is_chosen = json_is_true(json_object_get(row, "chosen"));

        fprintf(to, "  %s %s  (%s)\n      %s\n", is_chosen ? "->" : "  ", str(row, "rule"),
                str(row, "match"), str(row, "why"));
    }
}

static void print_texts(const json_t *list, const char *title, const char *indent, FILE *to)
{
    if (json_array_size(list) > 0 && title != NULL)
        fprintf(to, "\n%s\n", title);
    for (size_t k = 0; k < json_array_size(list); k++)
        fprintf(to, "%s%s\n", indent, json_string_value(json_array_get(list, k)));
}

static void print_limits(const json_t *i, FILE *to)
{
    static const char *const names[][2] = {{"request", "whole exchange"},
                                           {"attempt", "one attempt"},
                                           {"response_headers", "response headers"},
                                           {"idle", "without a byte"}};
    const json_t *timeouts = json_object_get(i, "timeouts"),
                 *retries = json_object_get(i, "retries");

    if (timeouts == NULL)
        return;
    fprintf(to, "\nTimeouts\n");
    for (size_t k = 0; k < 4; k++) {
        const json_t *t = json_object_get(timeouts, names[k][0]);
        long long ms = json_integer_value(json_object_get(t, "ms"));

        if (ms == 0)
            fprintf(to, "  %-17s none (%s)\n", names[k][1], str(t, "from"));
        else
            fprintf(to, "  %-17s %lldms (%s)\n", names[k][1], ms, str(t, "from"));
    }
    fprintf(to, "Retries\n  %s (%s)\n", str(retries, "policy"), str(retries, "from"));
}

static void print_rate_limit(const json_t *i, FILE *to)
{
    const json_t *r = json_object_get(i, "rate_limit");

    if (r != NULL)
        fprintf(to,
                "Rate limit at the server's side\n  %s: %lld/s in all, %lld/s per client (0: "
                "no limit)\n",
                str(r, "policy"),
                (long long)json_integer_value(json_object_get(r, "total_per_s")),
                (long long)json_integer_value(json_object_get(r, "identity_per_s")));
}

static void print_backends(const json_t *i, FILE *to)
{
    const json_t *list = json_object_get(i, "backends"),
                 *endpoints = json_object_get(i, "endpoints");

    if (json_array_size(list) > 0)
        fprintf(to, "\nBackends\n");
    for (size_t k = 0; k < json_array_size(list); k++) {
        const json_t *b = json_array_get(list, k);

        fprintf(to, "  %s  weight %lld (%.4g%%), %lld ready%s%s\n", str(b, "service"),
                (long long)json_integer_value(json_object_get(b, "weight")),
                json_real_value(json_object_get(b, "share")) * 100,
                (long long)json_integer_value(json_object_get(b, "ready")),
                str(b, "why")[0] != '\0' ? ": " : "", str(b, "why"));
        print_texts(json_object_get(b, "filters"), NULL, "      ", to);
    }
    if (json_array_size(endpoints) > 0)
        fprintf(to, "\nEndpoints\n");
    for (size_t k = 0; k < json_array_size(endpoints); k++) {
        const json_t *e = json_array_get(endpoints, k);

        fprintf(to, "  %s %s %s%s%s  weight %lld%s\n      %s\n",
                json_is_true(json_object_get(e, "chosen")) ? "->" : "  ", str(e, "address"),
                str(e, "pod"), str(e, "zone")[0] != '\0' ? " zone " : "", str(e, "zone"),
                (long long)json_integer_value(json_object_get(e, "weight")),
                json_is_true(json_object_get(e, "tls")) ? ", mTLS" : ", plain", str(e, "why"));
    }
}

void itinerary_print(const json_t *itinerary, FILE *to)
{
    print_destination(itinerary, to);
    print_rules(itinerary, to);
    if (str(itinerary, "answer")[0] != '\0')
        fprintf(to, "\nAnswered by the mesh: %s\n", str(itinerary, "answer"));
    print_texts(json_object_get(itinerary, "filters"), "Filters", "  ", to);
    print_limits(itinerary, to);
    print_rate_limit(itinerary, to);
    print_backends(itinerary, to);
}
