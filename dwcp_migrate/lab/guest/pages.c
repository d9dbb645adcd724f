/* The lab's guest: /init of an initramfs, one static program that owns the guest's memory.
 *
 * It fills memory with pages of several kinds, keeps changing some of them, checks all of them all the time, and says
 * once a second on the console what it found. Each page's content can be computed from (seed, page, generation), so a
 * byte that migration lost, swapped or resurrected is found by the next check, and told apart from an older version.
 *
 * A page is 32 slots of 128 bytes. Generation g > 0 of a page rewrote slot order(page, g): that is a partial change, as
 * programs make them. What a slot holds follows from the last generation that wrote it. Generations are kept in a table
 * of their own (4 bytes a page), which migrates like everything else.
 *
 * Kinds, by page number, in the proportions given:
 *     zero       touched, all zero; never changed
 *     random     incompressible
 *     text       words
 *     duplicate  one of 64 contents, the same on many pages; never changed
 *     records    pointers, small counters and flags, as heaps and kernel objects look
 *
 * Kernel command line: pages.fill=MiB pages.seed=N pages.mix=zero,random,text,duplicate,records (percent)
 *     pages.dirty=pages_per_s pages.check=pages_per_s pages.hot=percent of the pages that are changed
 *
 * Console: `pages: seq=.. mono_ms=.. pages=.. checked=.. passes=.. dirtied=.. errors=..` each second, and `pages: WRONG
 * page=.. slot=.. generation=.. kind=.. older=..` for the first wrong slots. `passes` counts complete checks of all pages.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096
#define SLOT 128
#define SLOTS (PAGE / SLOT)
#define WORDS_PER_SLOT (SLOT / 8)
#define DUPLICATES 64
#define TURN_MS 10
#define WRONG_PRINTED_MAX 20

enum kind { ZERO, RANDOM, TEXT, DUPLICATE, RECORDS, KINDS };
static const char *const kind_names[KINDS] = {"zero", "random", "text", "duplicate", "records"};

static uint64_t seed = 1, page_count, checked, passes, dirtied, errors, sequence;
static unsigned fill_mib = 64, dirty_per_s = 500, check_per_s = 8000, hot_percent = 20;
static unsigned mix[KINDS] = {20, 20, 25, 10, 25};
static uint8_t *memory;
static uint32_t *generations;

static const char *const words[64] = {
    "the ", "of ", "and ", "a ", "to ", "in ", "is ", "page ", "memory ", "error: ", "file ", "user ", "value ", "null",
    "true", "false", "name", "\n", "=", "{ ", " }", "http", "://", "/usr", "/lib", "/share/", "python", ".so", "0x",
    "0", "1", "2", "10", "42", "100", "1024", "2026-", "11", ":00", ", ", "; ", ". ", "(", ")", "\"", "':", "def ",
    "return ", "if ", "else ", "for ", "import ", "static ", "int ", "void ", "const ", "char *", "struct ", "size",
    "count", "index", "status ", "GET ", "OK "};

/* splitmix64: Steele, Lea, Flood 2014 */
static inline uint64_t mixed(uint64_t x)
{
    x += 0x9e3779b97f4a7c15ull;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ x >> 27) * 0x94d049bb133111ebull;
    return x ^ x >> 31;
}

static inline uint64_t state_of(uint64_t page, unsigned slot, uint32_t generation)
{
    return mixed(seed ^ mixed(page << 8 | slot) ^ (uint64_t)generation << 40);
}

static enum kind kind_of(uint64_t page)
{
    unsigned draw = mixed(seed * 31 + (page >> 3)) % 100; /* runs of 8 pages, as allocators leave them */
    for (int kind = 0; kind < KINDS - 1; kind++) {
        if (draw < mix[kind])
            return kind;
        draw -= mix[kind];
    }
    return RECORDS;
}

static unsigned order(uint64_t page, uint32_t generation)
{
    return (generation * 5 + page) % SLOTS; /* 5 is odd: every 32 generations each slot once */
}

/* The last generation up to `generation` that wrote this slot; 0 is the fill. */
static uint32_t writer(uint64_t page, unsigned slot, uint32_t generation)
{
    /* 5 * 13 = 1 (mod 32) */
    uint32_t residue = ((slot + SLOTS - page % SLOTS) * 13) % SLOTS;
    uint32_t back = (generation + SLOTS - residue) % SLOTS;
    return back <= generation ? generation - back : 0;
}

static void make_text(uint64_t *out, uint64_t state)
{
    char *text = (char *)out;
    unsigned length = 0;
    while (length < SLOT) {
        state = mixed(state);
        for (uint64_t bits = state, n = 0; n < 10 && length < SLOT; n++, bits >>= 6) {
            const char *word = words[bits & 63 & (bits >> 3 | 7)]; /* the first words come more often */
            while (*word && length < SLOT)
                text[length++] = *word++;
        }
    }
}

static void make_slot(uint64_t *out, uint64_t page, unsigned slot, uint32_t generation, enum kind kind)
{
    uint64_t state = state_of(kind == DUPLICATE ? page % DUPLICATES : page, slot, generation);
    switch (kind) {
    case ZERO:
        memset(out, 0, SLOT);
        break;
    case TEXT:
        make_text(out, state);
        break;
    case RECORDS:
        for (int i = 0; i < WORDS_PER_SLOT; i += 8) {
            out[i] = 0xffff888000000000ull + (page << 12) + slot * SLOT;
            out[i + 1] = 0xffff888000000000ull + (state % 0x4000000 & ~63ull);
            out[i + 2] = generation;
            out[i + 3] = 1 + (state >> 60);
            out[i + 4] = 0;
            out[i + 5] = 0xffffffff81000000ull + (state >> 40 & 0xff) * 64;
            out[i + 6] = 0;
            out[i + 7] = state >> 32 & 0xffff;
            state = mixed(state);
        }
        break;
    default:
        for (int i = 0; i < WORDS_PER_SLOT; i++)
            out[i] = state = mixed(state);
    }
}

static void fill(void)
{
    for (uint64_t page = 0; page < page_count; page++) {
        enum kind kind = kind_of(page);
        for (unsigned slot = 0; slot < SLOTS; slot++)
            make_slot((uint64_t *)(memory + page * PAGE + slot * SLOT), page, slot, 0, kind);
    }
}

static void change(void)
{
    uint64_t hot = page_count * hot_percent / 100;
    uint64_t page = hot ? mixed(seed ^ ++sequence) % hot : 0;
    enum kind kind = kind_of(page);
    if (!hot || kind == ZERO || kind == DUPLICATE)
        return;
    uint32_t generation = ++generations[page];
    unsigned slot = order(page, generation);
    make_slot((uint64_t *)(memory + page * PAGE + slot * SLOT), page, slot, generation, kind);
    dirtied++;
}

static void wrong(uint64_t page, unsigned slot, enum kind kind)
{
    uint64_t expected[WORDS_PER_SLOT];
    uint32_t generation = writer(page, slot, generations[page]), older = 0;
    for (uint32_t back = SLOTS; back <= generation && back <= 8 * SLOTS && !older; back += SLOTS) {
        make_slot(expected, page, slot, generation - back, kind);
        older = memcmp(expected, memory + page * PAGE + slot * SLOT, SLOT) ? 0 : back;
    }
    if (errors++ < WRONG_PRINTED_MAX)
        printf("pages: WRONG page=%lu slot=%u generation=%u kind=%s older=%u\n", page, slot, generation,
               kind_names[kind], older);
}

static void check(uint64_t page)
{
    uint64_t expected[WORDS_PER_SLOT];
    enum kind kind = kind_of(page);
    for (unsigned slot = 0; slot < SLOTS; slot++) {
        make_slot(expected, page, slot, writer(page, slot, generations[page]), kind);
        if (memcmp(expected, memory + page * PAGE + slot * SLOT, SLOT))
            wrong(page, slot, kind);
    }
    checked++;
}

static uint64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000ull + now.tv_nsec / 1000000;
}

static void report(uint64_t number)
{
    printf("pages: seq=%lu mono_ms=%lu pages=%lu checked=%lu passes=%lu dirtied=%lu errors=%lu\n", number, now_ms(),
           page_count, checked, passes, dirtied, errors);
}

/* In turns of TURN_MS: what is due since the start, but no more than two turns' worth at once after a pause. */
static void work(void)
{
    uint64_t start = now_ms(), change_due = 0, check_due = 0, next_page = 0, reports = 0, last = start;
    for (;;) {
        uint64_t now = now_ms(), passed = now - last > 2 * TURN_MS ? 2 * TURN_MS : now - last;
        last = now;
        change_due += passed * dirty_per_s;
        check_due += passed * check_per_s;
        for (; change_due >= 1000; change_due -= 1000)
            change();
        for (; check_due >= 1000; check_due -= 1000) {
            check(next_page++);
            if (next_page == page_count) {
                next_page = 0;
                passes++;
            }
        }
        if (now - start >= reports * 1000)
            report(reports++);
        usleep(TURN_MS * 1000);
    }
}

static void parse(void)
{
    char line[2048] = "";
    FILE *file = fopen("/proc/cmdline", "r");
    if (!file || !fgets(line, sizeof line, file))
        return;
    fclose(file);
    for (char *word = strtok(line, " \n"); word; word = strtok(NULL, " \n")) {
        sscanf(word, "pages.fill=%u", &fill_mib);
        sscanf(word, "pages.seed=%lu", &seed);
        sscanf(word, "pages.mix=%u,%u,%u,%u,%u", &mix[0], &mix[1], &mix[2], &mix[3], &mix[4]);
        sscanf(word, "pages.dirty=%u", &dirty_per_s);
        sscanf(word, "pages.check=%u", &check_per_s);
        sscanf(word, "pages.hot=%u", &hot_percent);
    }
}

static void prepare(void)
{
    mkdir("/proc", 0555);
    mkdir("/sys", 0555);
    mkdir("/dev", 0755);
    mount("proc", "/proc", "proc", 0, NULL);
    mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
    int console = open("/dev/ttyS0", O_RDWR);
    if (console >= 0)
        for (int i = 0; i < 3; i++)
            dup2(console, i);
    setvbuf(stdout, NULL, _IOLBF, 0);
    int module = open("/virtio_blk.ko", O_RDONLY | O_CLOEXEC);
    if (module >= 0 && syscall(SYS_finit_module, module, "", 0))
        perror("pages: virtio_blk");
}

int main(void)
{
    prepare();
    parse();
    page_count = (uint64_t)fill_mib << 8;
    memory = mmap(NULL, page_count * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    generations = calloc(page_count, sizeof *generations);
    if (memory == MAP_FAILED || !generations) {
        printf("pages: no memory for %u MiB\n", fill_mib);
        reboot(RB_POWER_OFF);
    }
    printf("pages: filling %u MiB, seed=%lu\n", fill_mib, seed);
    fill();
    work();
}
