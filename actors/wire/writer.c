#include "wire/writer.h"

#include <msgpack.h>

/* msgpack-c asks for a callback that says 0 for success; why it failed is kept beside it. */
struct sink {
    struct buf *out;
    err_t why;
};

static int sink_write(void *data, const char *bytes, size_t n)
{
    struct sink *s = data;

    s->why = buf_add(s->out, bytes, n);
    return s->why == OK ? 0 : -1;
}

#define PUT(call, ...)                                                                         \
    do {                                                                                       \
        struct sink sink = {out, OK};                                                          \
        msgpack_packer packer;                                                                 \
        msgpack_packer_init(&packer, &sink, sink_write);                                       \
        (void)call(&packer, __VA_ARGS__); /* sink.why says the same and more */                \
        TRY(sink.why);                                                                         \
    } while (0)

err_t wire_put_array(struct buf *out, size_t n)
{
    PUT(msgpack_pack_array, n);
    return OK;
}

err_t wire_put_map(struct buf *out, size_t n)
{
    PUT(msgpack_pack_map, n);
    return OK;
}

err_t wire_put_u64(struct buf *out, uint64_t v)
{
    PUT(msgpack_pack_uint64, v);
    return OK;
}

err_t wire_put_i64(struct buf *out, int64_t v)
{
    PUT(msgpack_pack_int64, v);
    return OK;
}

err_t wire_put_f64(struct buf *out, double v)
{
    PUT(msgpack_pack_double, v);
    return OK;
}

err_t wire_put_bool(struct buf *out, bool v)
{
    struct sink sink = {out, OK};
    msgpack_packer packer;

    msgpack_packer_init(&packer, &sink, sink_write);
    (void)(v ? msgpack_pack_true(&packer) : msgpack_pack_false(&packer));
    return sink.why;
}

err_t wire_put_nil(struct buf *out)
{
    struct sink sink = {out, OK};
    msgpack_packer packer;

    msgpack_packer_init(&packer, &sink, sink_write);
    (void)msgpack_pack_nil(&packer);
    return sink.why;
}

err_t wire_put_text(struct buf *out, slice_t s)
{
    PUT(msgpack_pack_str, s.n);
    return s.n == 0 ? OK : buf_add_slice(out, s);
}

err_t wire_put_bytes(struct buf *out, slice_t s)
{
    PUT(msgpack_pack_bin, s.n);
    return s.n == 0 ? OK : buf_add_slice(out, s);
}
