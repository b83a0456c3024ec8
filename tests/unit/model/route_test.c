/* Which rule a request follows. Rules are written as one line each, in the order of the
 * destination: HOSTS METHOD PATH HEADERS QUERY      (- for none; =/exact, /prefix, ~regex;
 * name=value, name~regex) and a request as  METHOD HOST PATH HEADERS; wanted is the number of
 * the rule, -1 for none. */
#include "model/route.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define MAX 8

struct world {
    struct wire_destination d;
    struct wire_rule rules[MAX];
    struct wire_host_match hosts[MAX][2];
    struct wire_match matches[MAX];
    struct wire_match_value headers[MAX][2], query[MAX][2];
    char text[MAX][256];
};

static size_t read_values(char *word, struct wire_match_value *out)
{
    size_t n = 0;
    char *save = NULL;

    if (strcmp(word, "-") == 0)
        return 0;
    for (char *w = strtok_r(word, ",", &save); w != NULL; w = strtok_r(NULL, ",", &save)) {
        size_t at = strcspn(w, "=~");

        out[n++] = (struct wire_match_value){.kind = w[at] == '~' ? ROUTE_VALUE_REGEX
                                                                  : ROUTE_VALUE_EXACT,
                                             .name = slice(w, at),
                                             .value = slice_str(w + at + 1)};
    }
    return n;
}

static void read_rule(struct world *w, size_t i, const char *line)
{
    char *save = NULL, *word, *hosts;
    struct wire_rule *r = &w->rules[i];
    struct wire_match *m = &w->matches[i];

    (void)snprintf(w->text[i], sizeof(w->text[i]), "%s", line);
    hosts = strtok_r(w->text[i], " ", &save);
    word = strtok_r(NULL, " ", &save);
    if (strcmp(word, "-") != 0)
        m->method = slice_str(word);
    word = strtok_r(NULL, " ", &save);
    if (strcmp(word, "-") != 0) {
        m->path_kind = word[0] == '='   ? ROUTE_PATH_EXACT
                       : word[0] == '~' ? ROUTE_PATH_REGEX
                                        : ROUTE_PATH_PREFIX;
        m->path = slice_str(m->path_kind == ROUTE_PATH_PREFIX ? word : word + 1);
    }
    m->headers = w->headers[i];
    m->n_headers = read_values(strtok_r(NULL, " ", &save), w->headers[i]);
    m->query = w->query[i];
    m->n_query = read_values(strtok_r(NULL, " ", &save), w->query[i]);
    r->matches = m;
    r->n_matches = 1;
    r->index = (uint16_t)i;
    r->route = SLICE_LIT("HTTPRoute/ns/r");
    r->hosts = w->hosts[i];
    if (strcmp(hosts, "-") == 0)
        return;
    for (char *h = strtok_r(hosts, ",", &save); h != NULL; h = strtok_r(NULL, ",", &save))
        w->hosts[i][r->n_hosts++].host = slice_str(h);
}

static void read_world(struct world *w, const char *const *lines)
{
    memset(w, 0, sizeof(*w));
    for (; w->d.n_rules < MAX && lines[w->d.n_rules] != NULL; w->d.n_rules++)
        read_rule(w, w->d.n_rules, lines[w->d.n_rules]);
    w->d.rules = w->rules;
}

/* The request's headers: "a=1,a=2,b=3". */
static bool header_of(void *arg, slice_t name, size_t nth, slice_t *value)
{
    slice_t rest = slice_str(arg);

    while (rest.n > 0) {
        const uint8_t *comma = memchr(rest.p, ',', rest.n);
        slice_t one = slice(rest.p, comma != NULL ? (size_t)(comma - rest.p) : rest.n);

        if (one.n > name.n && slice_starts(one, name) && one.p[name.n] == '=' && nth-- == 0) {
            *value = slice_skip(one, name.n + 1);
            return true;
        }
        rest = slice_skip(rest, one.n + 1);
    }
    return false;
}

static int decide(const char *const *lines, const char *request)
{
    struct world w;
    char text[256], why[160], *save = NULL, *path;
    struct route_table *t = NULL;
    struct route_request r = {.header = header_of};
    struct route_found found;
    int got = -1;

    read_world(&w, lines);
    assert_ptr_equal(route_table_new(&w.d, &t, why), OK);
    (void)snprintf(text, sizeof(text), "%s", request);
    r.method = slice_str(strtok_r(text, " ", &save));
    r.host = slice_str(strtok_r(NULL, " ", &save));
    path = strtok_r(NULL, " ", &save);
    r.path = slice(path, strcspn(path, "?"));
    r.query = path[r.path.n] == '?' ? slice_str(path + r.path.n + 1) : slice(NULL, 0);
    r.arg = strtok_r(NULL, " ", &save);
    if (r.arg == NULL)
        r.header = NULL;
    if (route_match(t, &r, &found)) {
        got = (int)found.index;
        assert_ptr_equal(found.rule, &w.rules[got]);
        assert_ptr_equal(found.match, &w.matches[got]);
    }
    route_table_free(&t);
    return got;
}

static const struct {
    const char *name;
    const char *rules[MAX];
    const char *request;
    int want;
} cases[] = {
    {"no rules", {NULL}, "GET h /", -1},
    {"a rule without conditions", {"- - - - -"}, "GET h /", 0},
    {"exact host beats wildcard", {"*.a.b - - - -", "x.a.b - - - -"}, "GET x.a.b /", 1},
    {"longer wildcard beats shorter", {"*.b - - - -", "*.a.b - - - -"}, "GET x.a.b /", 1},
    {"wildcard beats none", {"- - - - -", "*.b - - - -"}, "GET x.b /", 1},
    {"wildcard needs a label", {"*.b - - - -"}, "GET b /", -1},
    {"wildcard does not take a bare dot", {"*.b - - - -"}, "GET .b /", -1},
    {"wildcard takes several labels", {"*.b - - - -"}, "GET x.y.b /", 0},
    {"wildcard keeps the dot", {"*.b - - - -"}, "GET xb /", -1},
    {"host case, port and dot do not matter", {"web.ns - - - -"}, "GET WEB.ns.:8080 /", 0},
    {"IPv6 host", {"fd00::1 - - - -"}, "GET [fd00::1]:80 /", 0},
    {"another host", {"a - - - -"}, "GET b /", -1},
    {"second host of a rule", {"a,b - - - -"}, "GET b /", 0},
    {"host outranks path", {"- - =/x - -", "a - / - -"}, "GET a /x", 1},
    {"a better host that does not fit otherwise", {"- - /x - -", "a - /y - -"}, "GET a /x", 0},
    {"exact path beats prefix", {"- - /a - -", "- - =/a - -"}, "GET h /a", 1},
    {"longer prefix beats shorter", {"- - /a - -", "- - /a/b - -"}, "GET h /a/b/c", 1},
    {"prefix by segments", {"- - /a - -"}, "GET h /ab", -1},
    {"prefix itself", {"- - /a - -"}, "GET h /a", 0},
    {"prefix with slash", {"- - /a/ - -"}, "GET h /a", 0},
    {"prefix with a trailing slash in the path", {"- - /a - -"}, "GET h /a/", 0},
    {"prefix is case sensitive", {"- - /a - -"}, "GET h /A", -1},
    {"exact is exact", {"- - =/a - -"}, "GET h /a/", -1},
    {"prefix beats regex", {"- - ~/a/.* - -", "- - /a - -"}, "GET h /a/b", 1},
    {"regex beats catch-all", {"- - / - -", "- - ~/a/.* - -"}, "GET h /a/b", 1},
    {"regex beats no path", {"- - - - -", "- - ~/a/.* - -"}, "GET h /a/b", 1},
    {"catch-all where the regex does not fit", {"- - / - -", "- - ~/a/.* - -"}, "GET h /b", 0},
    {"regex is anchored", {"- - ~/a - -"}, "GET h /a/b", -1},
    {"method", {"- POST - - -"}, "GET h /", -1},
    {"method is case sensitive", {"- GET - - -"}, "get h /", -1},
    {"method beats none", {"- - / - -", "- GET / - -"}, "GET h /", 1},
    {"path outranks method", {"- GET / - -", "- - /a - -"}, "GET h /a", 1},
    {"method outranks headers", {"- - / a=1,b=2 -", "- GET / - -"}, "GET h / a=1,b=2", 1},
    {"more headers beat fewer", {"- - / a=1 -", "- - / a=1,b=2 -"}, "GET h / a=1,b=2", 1},
    {"all headers must fit", {"- - / a=1,b=2 -"}, "GET h / a=1,b=3", -1},
    {"any value of a repeated header", {"- - / a=2 -"}, "GET h / a=1,a=2", 0},
    {"header by regex", {"- - / a~[0-9]+ -"}, "GET h / a=12", 0},
    {"header regex is anchored", {"- - / a~[0-9]+ -"}, "GET h / a=12x", -1},
    {"header missing", {"- - / a=1 -"}, "GET h /", -1},
    {"more query parameters beat fewer",
     {"- - / - a=1", "- - / - a=1,b=2"},
     "GET h /?b=2&a=1",
     1},
    {"query value", {"- - / - a=1"}, "GET h /?a=2", -1},
    {"first of a repeated parameter", {"- - / - a=2"}, "GET h /?a=1&a=2", -1},
    {"query decoded", {"- - / - a=x~y"}, "GET h /?%61=x%7Ey", 0},
    {"query plus", {"- - / - a~x.y"}, "GET h /?a=x+y", 0},
    {"query without value", {"- - / - a~"}, "GET h /?a", 0},
    {"query bad escape stays", {"- - / - a=%zz"}, "GET h /?a=%zz", 0},
    {"query escape cut off", {"- - / - a=%4"}, "GET h /?a=%4", 0},
    {"headers outrank query", {"- - / - a=1,b=2", "- - / a=1 -"}, "GET h /?a=1&b=2 a=1", 1},
    {"order at a tie", {"- - /a - -", "- - /a - -"}, "GET h /a", 0},
    {"star request", {"- - / - -"}, "OPTIONS h *", 0},
};

static void test_precedence(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int got = decide(cases[i].rules, cases[i].request);

        if (got != cases[i].want)
            fail_msg("%s: rule %d, not %d", cases[i].name, got, cases[i].want);
    }
}

static void test_rule_without_matches(void **state)
{
    struct wire_rule rule = {.route = SLICE_LIT("")};
    struct wire_destination d = {.n_rules = 1, .rules = &rule};
    struct route_request r = {
        .host = SLICE_LIT("h"), .path = SLICE_LIT("/"), .method = SLICE_LIT("GET")};
    struct route_table *t = NULL;
    struct route_found found;
    char why[160];

    (void)state;
    assert_ptr_equal(route_table_new(&d, &t, why), OK);
    assert_true(route_match(t, &r, &found));
    assert_ptr_equal(found.rule, &rule);
    assert_null(found.match);
    route_table_free(&t);
    route_table_free(&t); /* NULL is fine */
}

static void test_unusable_views(void **state)
{
    static const char *const bad_regex[] = {"- - ~( - -", NULL}, *const bad_header[] = {
                                                                     "- - / a~[ -", NULL};
    struct wire_weighted weighted = {.backend = 1};
    struct wire_backend backend = {.port = 1};
    struct route_table *t = NULL;
    struct world w;
    char why[160];

    (void)state;
    read_world(&w, bad_regex);
    assert_ptr_equal(route_table_new(&w.d, &t, why), ERR_OF(MODEL_PATTERN));
    assert_non_null(strstr(why, "rule 0 of HTTPRoute/ns/r"));
    read_world(&w, bad_header);
    assert_ptr_equal(route_table_new(&w.d, &t, why), ERR_OF(MODEL_PATTERN));
    w.headers[0][0].kind = 9;
    assert_ptr_equal(route_table_new(&w.d, &t, why), ERR_OF(MODEL_INVALID));
    w.matches[0].path_kind = 9;
    assert_ptr_equal(route_table_new(&w.d, &t, why), ERR_OF(MODEL_INVALID));
    w.d.n_backends = 1;
    w.d.backends = &backend;
    w.rules[0].n_backends = 1;
    w.rules[0].backends = &weighted;
    assert_ptr_equal(route_table_new(&w.d, &t, why), ERR_OF(MODEL_INVALID));
    assert_null(t);
}

static bool not_one(void *arg, uint16_t backend)
{
    (void)arg;
    return backend != 1;
}

static void test_pick(void **state)
{
    struct wire_weighted b[] = {{.backend = 0, .weight = 1},
                                {.backend = 1, .weight = 0xffffffffU},
                                {.backend = 2, .weight = 0},
                                {.backend = 3, .weight = 3}};
    struct wire_rule rule = {.n_backends = 4, .backends = b};
    unsigned hits[4] = {0, 0, 0, 0};

    (void)state;
    for (uint64_t i = 0; i < 400; i++)
        hits[route_pick(&rule, i, not_one, NULL)->backend]++;
    assert_int_equal(hits[0], 100);
    assert_int_equal(hits[3], 300);
    assert_int_equal(route_pick(&rule, 1, NULL, NULL)->backend, 1);
    assert_int_equal(route_pick(&rule, 0xffffffffU, NULL, NULL)->backend, 1);
    assert_int_equal(route_pick(&rule, 0x100000000U, NULL, NULL)->backend, 3);
    b[0].weight = b[3].weight = 0;
    assert_null(route_pick(&rule, 7, not_one, NULL));
    rule.n_backends = 0;
    assert_null(route_pick(&rule, 7, NULL, NULL));
}

static void test_rewrites(void **state)
{
    static const struct {
        uint8_t path_kind, match_kind;
        const char *match, *to, *path, *want; /* want NULL: MODEL_INVALID */
    } rewrites[] = {
        {ROUTE_REWRITE_NOTHING, ROUTE_PATH_PREFIX, "/a", "", "/a/b", "/a/b"},
        {ROUTE_REWRITE_WHOLE, ROUTE_PATH_REGEX, "x", "/new", "/a/b", "/new"},
        {ROUTE_REWRITE_WHOLE, ROUTE_PATH_REGEX, "x", "", "/a/b", "/"},
        {ROUTE_REWRITE_PREFIX, ROUTE_PATH_PREFIX, "/a", "/x", "/a/b", "/x/b"},
        {ROUTE_REWRITE_PREFIX, ROUTE_PATH_PREFIX, "/a", "/x/", "/a/b", "/x/b"},
        {ROUTE_REWRITE_PREFIX, ROUTE_PATH_PREFIX, "/a/", "/x", "/a/b", "/x/b"},
        {ROUTE_REWRITE_PREFIX, ROUTE_PATH_PREFIX, "/a", "/x", "/a", "/x"},
        {ROUTE_REWRITE_PREFIX, ROUTE_PATH_PREFIX, "/a", "/x", "/a/", "/x/"},
        {ROUTE_REWRITE_PREFIX, ROUTE_PATH_PREFIX, "/a", "/", "/a", "/"},
        {ROUTE_REWRITE_PREFIX, ROUTE_PATH_PREFIX, "/a", "/", "/a/b", "/b"},
        {ROUTE_REWRITE_PREFIX, ROUTE_PATH_PREFIX, "/a", "", "/a", "/"},
        {ROUTE_REWRITE_PREFIX, ROUTE_PATH_PREFIX, "/", "/x", "/b", "/x/b"},
        {ROUTE_REWRITE_PREFIX, ROUTE_PATH_ANY, "", "/x", "/b", "/x/b"},
        {ROUTE_REWRITE_PREFIX, ROUTE_PATH_EXACT, "/a", "/x", "/a", NULL},
        {ROUTE_REWRITE_PREFIX, ROUTE_PATH_REGEX, "/a", "/x", "/a", NULL},
        {9, ROUTE_PATH_PREFIX, "/a", "/x", "/a", NULL},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rewrites) / sizeof(rewrites[0]); i++) {
        AUTO(buf_done) struct buf out;
        struct wire_filter f = {.path_kind = rewrites[i].path_kind,
                                .path = slice_str(rewrites[i].to)};
        struct wire_match m = {.path_kind = rewrites[i].match_kind,
                               .path = slice_str(rewrites[i].match)};
        err_t e;

        buf_init(&out, 0);
        e = route_rewrite_path(&f, &m, slice_str(rewrites[i].path), &out);
        assert_ptr_equal(e, rewrites[i].want != NULL ? OK : ERR_OF(MODEL_INVALID));
        if (e == OK && !slice_is_str(buf_slice(&out), rewrites[i].want))
            fail_msg("rewrite %zu: %.*s", i, SLICE_FMT(buf_slice(&out)));
    }
}

static void test_redirects(void **state)
{
    static const struct {
        const char *scheme, *host;
        uint16_t port;
        uint8_t path_kind;
        const char *path, *authority, *want;
        bool is_same;
    } redirects[] = {
        {"https", "", 0, 0, "", "web:8080", "https://web/p/q?a=1", false},
        {"https", "", 8443, 0, "", "web:8080", "https://web:8443/p/q?a=1", false},
        {"https", "", 443, 0, "", "web", "https://web/p/q?a=1", false},
        {"", "other", 0, 0, "", "web:8080", "http://other:8080/p/q?a=1", false},
        {"", "other", 80, 0, "", "web:8080", "http://other/p/q?a=1", false},
        {"", "", 0, ROUTE_REWRITE_WHOLE, "/n", "web", "http://web/n", false},
        {"", "", 0, ROUTE_REWRITE_PREFIX, "/n", "web", "http://web/n/q?a=1", false},
        {"", "", 0, 0, "", "web", "http://web/p/q?a=1", true},
        {"", "WEB", 0, 0, "", "web", "http://WEB/p/q?a=1", true},
        {"", "", 0, 0, "", "[fd00::1]:81", "http://[fd00::1]:81/p/q?a=1", true},
        {"", "", 0, 0, "", "", NULL, false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(redirects) / sizeof(redirects[0]); i++) {
        AUTO(buf_done) struct buf out;
        struct wire_filter f = {.scheme = slice_str(redirects[i].scheme),
                                .host = slice_str(redirects[i].host),
                                .port = redirects[i].port,
                                .path_kind = redirects[i].path_kind,
                                .path = slice_str(redirects[i].path)};
        struct wire_match m = {.path_kind = ROUTE_PATH_PREFIX, .path = SLICE_LIT("/p")};
        struct route_request r = {.host = slice_str(redirects[i].authority),
                                  .path = SLICE_LIT("/p/q"),
                                  .query = SLICE_LIT("a=1")};
        bool is_same = false;
        err_t e;

        buf_init(&out, 0);
        e = route_redirect_location(&f, &m, &r, SLICE_LIT("http"), &out, &is_same);
        assert_ptr_equal(e, redirects[i].want != NULL ? OK : ERR_OF(MODEL_INVALID));
        if (e == OK && !slice_is_str(buf_slice(&out), redirects[i].want))
            fail_msg("redirect %zu: %.*s", i, SLICE_FMT(buf_slice(&out)));
        if (e == OK)
            assert_int_equal(is_same, redirects[i].is_same);
    }
}

static void test_conditions_in_order(void **state)
{
    struct wire_condition first[] = {
        {ROUTE_CONDITION_PATH, false, SLICE_LIT("^/books/[0-9]+$")},
        {ROUTE_CONDITION_METHOD, true, SLICE_LIT("DELETE")}};
    struct wire_condition second[] = {{ROUTE_CONDITION_PATH, false, SLICE_LIT("/books/7")}};
    struct wire_match matches[] = {{.conditions = first, .n_conditions = 2},
                                   {.conditions = second, .n_conditions = 1}};
    struct wire_rule rules[] = {{.matches = &matches[0], .n_matches = 1},
                                {.matches = &matches[1], .n_matches = 1, .index = 1},
                                {.index = 2}};
    struct wire_destination d = {.rules = rules, .n_rules = 3, .in_order = true};
    static const struct {
        const char *method, *path;
        size_t want;
    } asked[] = {{"GET", "/books/7", 0},
                 {"DELETE", "/books/7", 1},
                 {"DELETE", "/books/8", 2},
                 {"GET", "/books/7x", 2},
                 {"", "/books/1", 0}};
    struct route_table *t = NULL;
    struct route_verdict v[3];
    struct route_found found;
    char why[160];

    (void)state;
    assert_null(route_table_new(&d, &t, why));
    for (size_t i = 0; i < sizeof(asked) / sizeof(asked[0]); i++) {
        struct route_request r = {.method = slice_str(asked[i].method),
                                  .path = slice_str(asked[i].path)};

        assert_true(route_match(t, &r, &found));
        assert_int_equal(found.index, asked[i].want);
        assert_int_equal(route_explain(t, &r, v, 3), 3);
        for (size_t k = 0; k < 3; k++) {
            assert_int_equal(v[k].is_chosen, k == asked[i].want);
            if (k > asked[i].want && v[k].missed == ROUTE_PART_NONE)
                assert_int_equal(v[k].lost_by, ROUTE_BY_ORDER);
        }
    }
    assert_int_equal(v[0].missed, ROUTE_PART_NONE);
    assert_int_equal(v[1].missed, ROUTE_PART_CONDITION);
    route_table_free(&t);
    first[1].what = 9;
    assert_ptr_equal(route_table_new(&d, &t, why), ERR_OF(MODEL_INVALID));
    assert_non_null(strstr(why, "a condition of an unknown kind"));
}

static void test_server_names(void **state)
{
    struct wire_host_match hosts[] = {
        {SLICE_LIT("*.b.c")}, {SLICE_LIT("a.b.c")}, {SLICE_LIT("*.c")}};
    struct wire_rule rules[] = {{.hosts = &hosts[2], .n_hosts = 1},
                                {.hosts = &hosts[0], .n_hosts = 1},
                                {.hosts = &hosts[1], .n_hosts = 1}};
    struct wire_destination d = {.tls_rules = rules, .n_tls_rules = 3};
    static const struct {
        const char *name;
        int want; /* -1: none */
    } asked[] = {{"a.b.c", 2}, {"A.B.C", 2}, {"a.b.c.", 2}, {"x.b.c", 1}, {"x.y.b.c", 1},
                 {"b.c", 0},   {"c", -1},    {"", -1},      {"a.b.d", -1}};
    struct route_table *t = NULL;
    struct route_found found;
    char why[160];

    (void)state;
    assert_null(route_table_new(&d, &t, why));
    for (size_t i = 0; i < sizeof(asked) / sizeof(asked[0]); i++) {
        bool got = route_match_sni(t, slice_str(asked[i].name), &found);

        if (got != (asked[i].want >= 0) || (got && (int)found.index != asked[i].want))
            fail_msg("%s", asked[i].name);
    }
    route_table_free(&t);
    rules[0].n_hosts = 0; /* every name, and none */
    assert_null(route_table_new(&d, &t, why));
    assert_true(route_match_sni(t, SLICE_LIT(""), &found));
    assert_int_equal(found.index, 0);
    assert_true(route_match_sni(t, SLICE_LIT("a.b.c"), &found));
    assert_int_equal(found.index, 2);
    route_table_free(&t);
}

static void test_bad_filters(void **state)
{
    static const struct wire_filter bad[] = {
        {.kind = 0},
        {.kind = 8},
        {.kind = 200},
        {.kind = ROUTE_FILTER_MIRROR, .backend = 1},
        {.kind = ROUTE_FILTER_REWRITE, .path_kind = 3},
        {.kind = ROUTE_FILTER_FAIL, .share_ppm = 1000001},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct wire_filter filter = bad[i];
        struct wire_backend backend = {.port = 1};
        struct wire_weighted to = {.filters = &filter, .n_filters = 1};
        struct wire_rule rule = {.filters = &filter, .n_filters = 1};
        struct wire_destination d = {
            .rules = &rule, .n_rules = 1, .backends = &backend, .n_backends = 1};
        struct route_table *t = NULL;
        char why[160];

        assert_ptr_equal(route_table_new(&d, &t, why), ERR_OF(MODEL_INVALID));
        rule = (struct wire_rule){.backends = &to, .n_backends = 1};
        assert_ptr_equal(route_table_new(&d, &t, why), ERR_OF(MODEL_INVALID));
        d = (struct wire_destination){
            .tls_rules = &rule, .n_tls_rules = 1, .backends = &backend, .n_backends = 1};
        assert_ptr_equal(route_table_new(&d, &t, why), ERR_OF(MODEL_INVALID));
        d = (struct wire_destination){
            .tcp_rules = &rule, .n_tcp_rules = 1, .backends = &backend, .n_backends = 1};
        assert_ptr_equal(route_table_new(&d, &t, why), ERR_OF(MODEL_INVALID));
        assert_null(t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_conditions_in_order),
        cmocka_unit_test(test_server_names),
        cmocka_unit_test(test_bad_filters),
        cmocka_unit_test(test_precedence),
        cmocka_unit_test(test_rule_without_matches),
        cmocka_unit_test(test_unusable_views),
        cmocka_unit_test(test_pick),
        cmocka_unit_test(test_rewrites),
        cmocka_unit_test(test_redirects),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
