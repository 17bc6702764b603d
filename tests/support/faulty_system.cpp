// Preloaded into processes of tests: lets chosen calls of the C library fail, be slow or be recorded, and moves the
// clock. What it does is set by `faulty_arm` (through ctypes) or, for a process that is only started, by variables.
//
// Only calls on files below one folder count. Numbers count mutating calls of the process from 1.

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <mutex>

namespace {

enum Kind { OPENS = 1, WRITES = 2, SYNCS = 4, NAMES = 8, REMOVES = 16, TRUNCATES = 32 };

struct Arms {
  char prefix[PATH_MAX];
  long from;     // the first call that fails, 0: none
  int error;     // errno
  int kinds;     // which calls count
  int lasting;   // whether all calls from there on fail
  int partial;   // whether the first write that fails writes a half of it
  long delay_us; // of every call that counts
  long clock_s;  // what is added to the time of day
  int record_fd; // where calls are recorded, -1: nowhere
};

Arms arms = {{0}, 0, 0, 0, 0, 0, 0, 0, -1};
std::atomic<long> counted{0};
std::atomic<long> failed{0};
std::mutex recording;

template <typename F> F real(const char *name) { return reinterpret_cast<F>(dlsym(RTLD_NEXT, name)); }
#define REAL(name) (*[]() { static auto found = real<decltype(&name)>(#name); return found; }())

bool below(const char *path) {
  size_t length = strlen(arms.prefix);
  return length && strncmp(path, arms.prefix, length) == 0 && (path[length] == '/' || path[length] == 0);
}

bool path_of(int fd, char *path) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, PATH_MAX - 1);
  if (length < 0) return false;
  path[length] = 0;
  return true;
}

void absolute(int at, const char *given, char *path) {
  if (given[0] == '/') { snprintf(path, PATH_MAX, "%s", given); return; }
  char folder[PATH_MAX] = "";
  if (at == AT_FDCWD) { if (!getcwd(folder, sizeof folder)) folder[0] = 0; }
  else path_of(at, folder);
  snprintf(path, PATH_MAX, "%.2000s/%.2000s", folder, given);
}

// Whether this call is to fail; counts it.
bool fails(int kind, const char *path) {
  if (!arms.prefix[0] || !(arms.kinds & kind) || !below(path)) return false;
  if (arms.delay_us) usleep(arms.delay_us);
  long number = ++counted;
  if (!arms.from || number < arms.from || (number > arms.from && !arms.lasting)) return false;
  ++failed;
  errno = arms.error;
  return true;
}

// One record: op, path, other path, offset, bytes; then the bytes themselves.
void record(char op, const char *path, const char *other, long long offset, const void *data, size_t bytes) {
  if (arms.record_fd < 0 || (!below(path) && op != 'A')) return;
  std::lock_guard<std::mutex> held(recording);
  char head[2 * PATH_MAX + 128];
  int length = snprintf(head, sizeof head, "%c\t%s\t%s\t%lld\t%zu\n", op, path, other, offset, bytes);
  syscall(SYS_write, arms.record_fd, head, length);
  if (bytes) syscall(SYS_write, arms.record_fd, data, bytes);
}

int moved_stat() { // the boot time moves with the clock
  int from = syscall(SYS_openat, AT_FDCWD, "/proc/stat", O_RDONLY);
  int to = syscall(SYS_memfd_create, "stat", 0);
  FILE *in = fdopen(from, "r");
  char line[65536];
  while (in && fgets(line, sizeof line, in)) {
    long long boot;
    if (sscanf(line, "btime %lld", &boot) == 1) dprintf(to, "btime %lld\n", boot + arms.clock_s);
    else dprintf(to, "%s", line);
  }
  if (in) fclose(in);
  lseek(to, 0, SEEK_SET);
  return to;
}

int open_any(int at, const char *given, int flags, mode_t mode) {
  if (arms.clock_s && strcmp(given, "/proc/stat") == 0) return moved_stat();
  char path[PATH_MAX];
  bool writes = (flags & O_ACCMODE) != O_RDONLY || (flags & O_CREAT);
  bool makes = false;
  if (arms.prefix[0] && writes) {
    absolute(at, given, path);
    struct stat state;
    makes = (flags & O_CREAT) && fstatat(at, given, &state, 0) != 0;
    if ((makes || arms.error == EROFS || arms.error == EACCES) && fails(OPENS, path)) return -1;
  }
  int fd = syscall(SYS_openat, at, given, flags, mode);
  if (fd >= 0 && arms.prefix[0] && writes) {
    if (makes) record('C', path, "", 0, nullptr, 0);
    if (flags & O_TRUNC) record('T', path, "", 0, nullptr, 0);
  }
  return fd;
}

} // namespace

extern "C" {

void faulty_arm(const char *prefix, long from, int error, int kinds, int lasting, int partial, long delay_us,
                long clock_s, const char *record_to) {
  snprintf(arms.prefix, sizeof arms.prefix, "%s", prefix);
  arms.from = from, arms.error = error, arms.kinds = kinds, arms.lasting = lasting, arms.partial = partial;
  arms.delay_us = delay_us, arms.clock_s = clock_s;
  arms.record_fd = -1;
  if (record_to[0])
    arms.record_fd = syscall(SYS_openat, AT_FDCWD, record_to, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  counted = 0, failed = 0;
}

long faulty_counted() { return counted; }
long faulty_failed() { return failed; }
void faulty_note(const char *text) { record('A', text, "", 0, nullptr, 0); }

__attribute__((constructor)) static void from_variables() {
  const char *text = getenv("FAULTY_SYSTEM"); // prefix|from|errno|kinds|lasting|partial|delay_us|clock_s
  if (!text) return;
  char prefix[PATH_MAX];
  long from, delay, clock;
  int error, kinds, lasting, partial;
  if (sscanf(text, "%4000[^|]|%ld|%d|%d|%d|%d|%ld|%ld", prefix, &from, &error, &kinds, &lasting, &partial, &delay,
             &clock) == 8)
    faulty_arm(prefix, from, error, kinds, lasting, partial, delay, clock, "");
}

#define MODE(flags)                                                                                                  \
  mode_t mode = 0;                                                                                                   \
  if ((flags) & (O_CREAT | O_TMPFILE)) { va_list rest; va_start(rest, flags); mode = va_arg(rest, mode_t); va_end(rest); }

int open(const char *path, int flags, ...) { MODE(flags) return open_any(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags) return open_any(AT_FDCWD, path, flags, mode); }
int openat(int at, const char *path, int flags, ...) { MODE(flags) return open_any(at, path, flags, mode); }
int openat64(int at, const char *path, int flags, ...) { MODE(flags) return open_any(at, path, flags, mode); }

static ssize_t write_any(int fd, const void *data, size_t bytes, off64_t offset, bool placed) {
  char path[PATH_MAX];
  bool known = arms.prefix[0] && path_of(fd, path) && below(path);
  if (known && fails(WRITES, path)) {
    if (!arms.partial || failed > 1 || bytes < 2) return -1;
    bytes /= 2;
  }
  off64_t at = placed ? offset : (known && arms.record_fd >= 0 ? lseek(fd, 0, SEEK_CUR) : 0);
  ssize_t done = placed ? syscall(SYS_pwrite64, fd, data, bytes, offset) : syscall(SYS_write, fd, data, bytes);
  if (known && done > 0) record('W', path, "", at, data, done);
  return done;
}

ssize_t write(int fd, const void *data, size_t bytes) { return write_any(fd, data, bytes, 0, false); }
ssize_t pwrite(int fd, const void *data, size_t bytes, off_t offset) { return write_any(fd, data, bytes, offset, true); }
ssize_t pwrite64(int fd, const void *data, size_t bytes, off64_t offset) { return write_any(fd, data, bytes, offset, true); }
ssize_t writev(int fd, const struct iovec *parts, int count) {
  char path[PATH_MAX];
  if (arms.prefix[0] && path_of(fd, path) && below(path)) {
    ssize_t whole = 0;
    for (int part = 0; part < count; part++) {
      ssize_t done = write_any(fd, parts[part].iov_base, parts[part].iov_len, 0, false);
      if (done < 0) return whole ? whole : done;
      whole += done;
      if ((size_t)done < parts[part].iov_len) return whole;
    }
    return whole;
  }
  return syscall(SYS_writev, fd, parts, count);
}

static int sync_any(int fd, int call) {
  char path[PATH_MAX];
  bool known = arms.prefix[0] && path_of(fd, path);
  if (known && fails(SYNCS, path)) return -1;
  if (known) record('S', path, "", 0, nullptr, 0);
  if (known && arms.record_fd >= 0) return 0; // what is only recorded need not wait for the disk
  return syscall(call, fd);
}
int fsync(int fd) { return sync_any(fd, SYS_fsync); }
int fdatasync(int fd) { return sync_any(fd, SYS_fdatasync); }

static int truncate_any(int fd, off64_t length) {
  char path[PATH_MAX];
  bool known = arms.prefix[0] && path_of(fd, path);
  if (known && fails(TRUNCATES, path)) return -1;
  int done = syscall(SYS_ftruncate, fd, length);
  if (known && done == 0) record('T', path, "", length, nullptr, 0);
  return done;
}
int ftruncate(int fd, off_t length) { return truncate_any(fd, length); }
int ftruncate64(int fd, off64_t length) { return truncate_any(fd, length); }

int posix_fallocate(int fd, off_t offset, off_t length) {
  char path[PATH_MAX];
  if (arms.prefix[0] && path_of(fd, path) && fails(WRITES, path)) return arms.error;
  return syscall(SYS_fallocate, fd, 0, offset, length) ? errno : 0;
}

static int name_any(int kind, char op, int at, const char *given, int to_at, const char *to, int call, long a, long b,
                    long c, long d, long e) {
  char path[PATH_MAX] = "", other[PATH_MAX] = "";
  if (arms.prefix[0]) {
    absolute(at, given, path);
    if (to) absolute(to_at, to, other);
    if (fails(kind, to && op != 'R' ? other : path)) return -1;
  }
  int done = syscall(call, a, b, c, d, e);
  if (done == 0 && arms.prefix[0]) record(op, path, other, 0, nullptr, 0);
  return done;
}

int renameat2(int at, const char *from, int to_at, const char *to, unsigned flags) {
  return name_any(NAMES, 'R', at, from, to_at, to, SYS_renameat2, at, (long)from, to_at, (long)to, flags);
}
int rename(const char *from, const char *to) { return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0); }
int renameat(int at, const char *from, int to_at, const char *to) { return renameat2(at, from, to_at, to, 0); }
int linkat(int at, const char *from, int to_at, const char *to, int flags) {
  return name_any(NAMES, 'L', at, from, to_at, to, SYS_linkat, at, (long)from, to_at, (long)to, flags);
}
int link(const char *from, const char *to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }
int mkdirat(int at, const char *path, mode_t mode) {
  return name_any(NAMES, 'D', at, path, 0, nullptr, SYS_mkdirat, at, (long)path, mode, 0, 0);
}
int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }
int unlinkat(int at, const char *path, int flags) {
  return name_any(REMOVES, 'U', at, path, 0, nullptr, SYS_unlinkat, at, (long)path, flags, 0, 0);
}
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }

int clock_gettime(clockid_t which, struct timespec *found) {
  int done = syscall(SYS_clock_gettime, which, found);
  if (done == 0 && (which == CLOCK_REALTIME || which == CLOCK_REALTIME_COARSE)) found->tv_sec += arms.clock_s;
  return done;
}
int gettimeofday(struct timeval *__restrict found, void *__restrict) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  found->tv_sec = now.tv_sec, found->tv_usec = now.tv_nsec / 1000;
  return 0;
}
time_t time(time_t *place) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (place) *place = now.tv_sec;
  return now.tv_sec;
}

} // extern "C"
