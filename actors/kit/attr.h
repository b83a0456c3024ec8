/* The compiler attributes of the tree, in the only place that may spell them. */
#ifndef KIT_ATTR_H
#define KIT_ATTR_H

#define MUST_USE          __attribute__((warn_unused_result))
#define PRINTF_LIKE(f, a) __attribute__((format(printf, f, a)))
#define NORETURN          __attribute__((noreturn))
#define HOT               __attribute__((hot))
#define COLD              __attribute__((cold))
#define LIKELY(x)         __builtin_expect(!!(x), 1)
#define UNLIKELY(x)       __builtin_expect(!!(x), 0)

/* AUTO(route_free) struct route *r = NULL;  runs route_free(&r) when r leaves its scope. */
#define AUTO(fn) __attribute__((cleanup(fn)))

#endif
