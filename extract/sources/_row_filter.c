/* The rows of a CSV text that may have one of some whole numbers in one field; see row_filter.py. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define DIGITS 18 /* all that fit an int64_t for certain; the reader looks at longer numbers */

/* Open addressing, nearly empty, so that most numbers meet no id; no id is negative. */
typedef struct {
    int64_t *slots;
    uint64_t last;
} Ids;

static uint64_t first_slot(const Ids *ids, int64_t id)
{
    return (((uint64_t)id * UINT64_C(0x9E3779B97F4A7C15)) >> 32) & ids->last;
}

static int has(const Ids *ids, int64_t id)
{
    uint64_t slot = first_slot(ids, id);
    while (ids->slots[slot] >= 0 && ids->slots[slot] != id)
        slot = (slot + 1) & ids->last;
    return ids->slots[slot] == id;
}

static int start_ids(Ids *ids, const int64_t *wanted, Py_ssize_t count)
{
    uint64_t size = 8;
    while (size < 16 * (uint64_t)count)
        size *= 2;
    ids->last = size - 1;
    ids->slots = malloc(size * sizeof(int64_t));
    if (ids->slots == NULL)
        return -1;
    memset(ids->slots, 0xff, size * sizeof(int64_t)); /* -1 */
    for (Py_ssize_t i = 0; i < count; i++) {
        uint64_t slot = first_slot(ids, wanted[i]);
        while (ids->slots[slot] >= 0)
            slot = (slot + 1) & ids->last;
        ids->slots[slot] = wanted[i];
    }
    return 0;
}

static const char *next(char wanted, const char *from, const char *end)
{
    const char *found = memchr(from, wanted, (size_t)(end - from));
    return found == NULL ? end : found;
}

/* The line end that ends a row, or `end`; one within quotes ends none.
   `quote` is the first quote from the row's start on, and becomes that of the next row. */
static const char *row_end(const char *row, const char *end, const char **quote)
{
    const char *line = next('\n', row, end);
    while (*quote < line) {
        const char *closing = next('"', *quote + 1, end);
        if (closing == end)
            return end;
        if (closing > line)
            line = next('\n', closing, end);
        *quote = next('"', closing + 1, end);
    }
    return line;
}

/* Whether the field at a place is one of the ids, or something that a reader must look at: a quote
   in it or before, or text that is not the plain way to write a whole number. */
static int is_candidate(const char *at, const char *line, const char *quote, Py_ssize_t place,
                        const Ids *ids)
{
    while (place > 0 && at < line)
        place -= *at++ == ',';
    if (quote < at)
        return 1;
    if (place > 0)
        return 0; /* no such field */
    const char *field = at;
    int64_t id = 0;
    while (at < line && *at >= '0' && *at <= '9' && at - field < DIGITS)
        id = 10 * id + (*at++ - '0');
    const char *stop = at;
    if (at < line && *at == '\r' && at + 1 == line)
        at++;
    if (at < line && *at != ',')
        return 1;
    if (stop == field)
        return 0; /* empty */
    return *field == '0' || has(ids, id);
}

static int is_ascii(const char *text, Py_ssize_t size)
{
    unsigned char high = 0; /* no early end, so that compilers use wide registers */
    for (Py_ssize_t i = 0; i < size; i++)
        high |= (unsigned char)text[i];
    return high < 0x80;
}

static PyObject *find(PyObject *module, PyObject *args)
{
    (void)module;
    Py_buffer text, wanted;
    Py_ssize_t place;
    if (!PyArg_ParseTuple(args, "y*ny*", &text, &place, &wanted))
        return NULL;
    Ids ids;
    const char *start = text.buf, *end = start + text.len, *row = start;
    char *kept = malloc((size_t)text.len + 1), *to = kept;
    Py_ssize_t rows = 0;
    int ascii = 0;
    PyObject *found = NULL;
    if (kept == NULL || start_ids(&ids, wanted.buf, wanted.len / (Py_ssize_t)sizeof(int64_t)) < 0) {
        PyErr_NoMemory();
        goto done;
    }
    Py_BEGIN_ALLOW_THREADS
    const char *later = next('"', start, end), *quote = later, *line;
    while ((line = row_end(row, end, &later)) < end) {
        if (is_candidate(row, line, quote, place, &ids)) {
            memcpy(to, row, (size_t)(line + 1 - row));
            to += line + 1 - row;
        }
        row = line + 1;
        quote = later;
        rows++;
    }
    ascii = is_ascii(start, row - start);
    Py_END_ALLOW_THREADS
    free(ids.slots);
    found = Py_BuildValue("y#nnO", kept, (Py_ssize_t)(to - kept), (Py_ssize_t)(row - start), rows,
                          ascii ? Py_True : Py_False);
done:
    free(kept);
    PyBuffer_Release(&text);
    PyBuffer_Release(&wanted);
    return found;
}

static PyMethodDef methods[] = {
    {"find", find, METH_VARARGS, "Candidates; of the whole rows their bytes, their number, and whether all is ASCII."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_row_filter", NULL, 0, methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__row_filter(void)
{
    return PyModuleDef_Init(&definition);
}
