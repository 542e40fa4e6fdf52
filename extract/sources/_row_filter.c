/* The rows of a CSV text that have one of some whole numbers in one field; see row_filter.py. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define SKIP '-' /* kinds of fields */
#define ID 'i'
#define TIME 't'
#define TEXT 's'
#define MISSING INT64_MIN
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

#define EACH_BYTE UINT64_C(0x0101010101010101)

/* Eight bytes at once: the highest bit of each that is a comma. */
static uint64_t commas(const char *at)
{
    const uint64_t low = 0x7f * EACH_BYTE;
    uint64_t bytes;
    memcpy(&bytes, at, sizeof bytes);
    bytes ^= ',' * EACH_BYTE; /* a comma becomes nought */
    return ~(((bytes & low) + low) | bytes | low);
}

/* What lies behind a number of commas, `end` at the latest; the number becomes what is missing. */
static const char *skip_commas(const char *at, const char *end, Py_ssize_t *count)
{
#if defined(__GNUC__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    while (*count > 0 && end - at >= 8) {
        uint64_t found = commas(at);
        Py_ssize_t here = (Py_ssize_t)((found >> 7) * EACH_BYTE >> 56);
        if (here >= *count) {
            while (--*count > 0)
                found &= found - 1;
            return at + __builtin_ctzll(found) / 8 + 1;
        }
        *count -= here;
        at += 8;
    }
#endif
    while (*count > 0 && at < end)
        *count -= *at++ == ',';
    return at;
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
    at = skip_commas(at, line, &place);
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

/* A number, or where text begins and how many bytes it has; -1 bytes are no text. */
typedef struct {
    const char *text;
    int64_t number;
} Cell;

static int all_digits(const char *at, int count)
{
    while (count > 0 && *at >= '0' && *at <= '9')
        at++, count--;
    return count == 0;
}

static int two(const char *at)
{
    return 10 * (at[0] - '0') + (at[1] - '0');
}

/* Microseconds since 1970 of a time written YYYY-MM-DD hh:mm:ss. */
static int read_time(const char *at, const char *end, int64_t *number)
{
    static const int lengths[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    if (end - at != 19 || at[4] != '-' || at[7] != '-' || at[10] != ' ' || at[13] != ':' ||
        at[16] != ':')
        return 0;
    if (!all_digits(at, 4) || !all_digits(at + 5, 2) || !all_digits(at + 8, 2) ||
        !all_digits(at + 11, 2) || !all_digits(at + 14, 2) || !all_digits(at + 17, 2))
        return 0;
    int year = 100 * two(at) + two(at + 2), month = two(at + 5), day = two(at + 8);
    int hour = two(at + 11), minute = two(at + 14), second = two(at + 17);
    if (year < 1 || month < 1 || month > 12 || day < 1 || hour > 23 || minute > 59 || second > 59)
        return 0;
    int leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    if (day > lengths[month - 1] + (leap && month == 2))
        return 0;
    int before = year - 1;
    int64_t days = 365 * (int64_t)before + before / 4 - before / 100 + before / 400 - 719162;
    for (int m = 1; m < month; m++)
        days += lengths[m - 1];
    days += day - 1 + (leap && month > 2);
    *number = (((days * 24 + hour) * 60 + minute) * 60 + second) * 1000000;
    return 1;
}

static int read_id(const char *at, const char *end, int64_t *number)
{
    if (end - at > DIGITS || !all_digits(at, (int)(end - at)))
        return 0;
    for (*number = 0; at < end; at++)
        *number = 10 * *number + (*at - '0');
    return 1;
}

static int read_cell(char kind, const char *from, const char *end, int quoted, Cell *cell)
{
    cell->text = from;
    if (kind == TEXT)
        cell->number = from < end || quoted ? end - from : -1;
    else if (from == end && !quoted)
        cell->number = MISSING;
    else if (from == end)
        return 0;
    else
        return (kind == ID ? read_id : read_time)(from, end, &cell->number);
    return 1;
}

/* Read the wanted cells of a row; 0 where a reader must look: not as many fields as kinds, a quote
   within a field, a carriage return at its end, a number or a time not written in the plain way.
   `quote` is the first one from the row's start on. */
static int read_row(const char *at, const char *line, const char *quote, const char *kinds,
                    Py_ssize_t fields, Cell *cells)
{
    const char *end = line > at && line[-1] == '\r' ? line - 1 : line;
    for (Py_ssize_t field = 0; field < fields; field++) {
        int quoted = at == quote && at < end;
        const char *from = at + quoted;
        const char *to = next(quoted ? '"' : ',', from, end);
        at = to + quoted;
        if (quoted)
            quote = next('"', at, end);
        if (at > end || quote < at || (field + 1 == fields) != (at == end))
            return 0;
        if ((at < end && *at != ',') || (!quoted && to > from && to[-1] == '\r'))
            return 0;
        at++;
        if (kinds[field] != SKIP && !read_cell(kinds[field], from, to, quoted, cells++))
            return 0;
    }
    return 1;
}

/* The cells of one field: numbers, or the lengths of texts and the texts one behind another. */
typedef struct {
    char kind;
    void *numbers;
    char *texts;
    Py_ssize_t size;
} Column;

static void keep(Column *column, Py_ssize_t row, const Cell *cell)
{
    if (column->kind != TEXT) {
        ((int64_t *)column->numbers)[row] = cell->number;
        return;
    }
    ((int32_t *)column->numbers)[row] = (int32_t)cell->number;
    if (cell->number > 0) {
        memcpy(column->texts + column->size, cell->text, (size_t)cell->number);
        column->size += (Py_ssize_t)cell->number;
    }
}

/* Memory for a text of some size: columns, the cells of a row, rows to hand on. It is one piece,
   since allocators return many large ones to the system each time. */
static Column *start_columns(const char *kinds, Py_ssize_t fields, Py_ssize_t size, Cell **cells,
                             char **rest)
{
    size_t count = 0, texts = 0, most = (size_t)(size / fields) + 1; /* a field takes a byte */
    for (Py_ssize_t field = 0; field < fields; field++) {
        count += kinds[field] != SKIP;
        texts += kinds[field] == TEXT;
    }
    size_t numbers = count * (sizeof(Column) + sizeof(Cell) + most * sizeof(int64_t));
    Column *columns = malloc(numbers + (texts + 1) * ((size_t)size + 1));
    if (columns == NULL)
        return NULL;
    *cells = (Cell *)(columns + count);
    int64_t *number = (int64_t *)(*cells + count);
    *rest = (char *)(number + count * most);
    for (Column *column = columns; fields > 0; fields--, kinds++)
        if (*kinds != SKIP) {
            *column++ = (Column){*kinds, number, *rest, 0};
            number += most;
            *rest += *kinds == TEXT ? size + 1 : 0;
        }
    return columns;
}

/* The columns as bytes objects, one for numbers, two for texts. */
static PyObject *as_list(const Column *columns, Py_ssize_t count, Py_ssize_t rows)
{
    PyObject *list = PyList_New(0);
    for (Py_ssize_t i = 0; list != NULL && i < count; i++) {
        size_t width = columns[i].kind == TEXT ? sizeof(int32_t) : sizeof(int64_t);
        const char *parts[] = {columns[i].numbers, columns[i].texts};
        Py_ssize_t sizes[] = {rows * (Py_ssize_t)width, columns[i].size};
        for (int part = 0; list != NULL && part <= (columns[i].kind == TEXT); part++) {
            PyObject *bytes = PyBytes_FromStringAndSize(parts[part], sizes[part]);
            if (bytes == NULL || PyList_Append(list, bytes) < 0)
                Py_CLEAR(list);
            Py_XDECREF(bytes);
        }
    }
    return list;
}

static PyObject *find(PyObject *module, PyObject *args)
{
    (void)module;
    Py_buffer text, kinds, wanted;
    Py_ssize_t place;
    if (!PyArg_ParseTuple(args, "y*y*ny*", &text, &kinds, &place, &wanted))
        return NULL;
    const char *start = text.buf, *end = start + text.len, *row = start, *kind = kinds.buf;
    Py_ssize_t fields = kinds.len, rows = 0, read = 0, count = 0, key = 0;
    for (Py_ssize_t field = 0; field < fields; field++) {
        key += field < place && kind[field] != SKIP;
        count += kind[field] != SKIP;
    }
    Ids ids = {NULL, 0};
    Column *columns = NULL;
    Cell *cells;
    char *rest, *to;
    PyObject *found = NULL;
    int ascii = 0;
    if (place < 0 || place >= fields || kind[place] != ID) {
        PyErr_SetString(PyExc_ValueError, "expected ids at the place of the key");
        goto done;
    }
    columns = start_columns(kind, fields, text.len, &cells, &rest);
    if (columns == NULL ||
        start_ids(&ids, wanted.buf, wanted.len / (Py_ssize_t)sizeof(int64_t)) < 0) {
        PyErr_NoMemory();
        goto done;
    }
    to = rest;
    Py_BEGIN_ALLOW_THREADS
    const char *later = next('"', start, end), *quote = later, *line;
    while ((line = row_end(row, end, &later)) < end) {
        if (!is_candidate(row, line, quote, place, &ids))
            ;
        else if (!read_row(row, line, quote, kind, fields, cells)) {
            memcpy(to, row, (size_t)(line + 1 - row));
            to += line + 1 - row;
        }
        else if (cells[key].number != MISSING && has(&ids, cells[key].number)) {
            for (Py_ssize_t i = 0; i < count; i++)
                keep(&columns[i], read, &cells[i]);
            read++;
        }
        row = line + 1;
        quote = later;
        rows++;
    }
    ascii = is_ascii(start, row - start);
    Py_END_ALLOW_THREADS
    found = as_list(columns, count, read);
    if (found != NULL)
        found = Py_BuildValue("Ny#nnO", found, rest, (Py_ssize_t)(to - rest),
                              (Py_ssize_t)(row - start), rows, ascii ? Py_True : Py_False);
done:
    free(columns);
    free(ids.slots);
    PyBuffer_Release(&text);
    PyBuffer_Release(&kinds);
    PyBuffer_Release(&wanted);
    return found;
}

static PyMethodDef methods[] = {
    {"find", find, METH_VARARGS,
     "Cells of plain rows, other candidates; of the whole rows their bytes, their number, and "
     "whether all is ASCII."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_row_filter", NULL, 0, methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__row_filter(void)
{
    return PyModuleDef_Init(&definition);
}
