/* Puts a disk's moods between SQLite and the kernel: LD_PRELOAD, for one folder of a test.
 *
 * MOOD_FOLDER is whose files it is about, MOOD_FILE says how it is at the moment, in one line:
 * "" fine; "readonly" EROFS for whoever writes, as after an error that made the kernel remount it;
 * "full" ENOSPC for the same; "gone" EIO for everything; "stalled" whoever writes waits until it is not. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#define REAL(name) \
  static __typeof__(&name) real; \
  if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

static void look(char *mood, size_t size) {
  REAL(open);
  int saved = errno, file = real(getenv("MOOD_FILE"), O_RDONLY);
  ssize_t n = file < 0 ? 0 : read(file, mood, size - 1);
  mood[n > 0 ? n : 0] = 0;
  if (file >= 0) close(file);
  errno = saved;
}

static int ours_path(const char *path) {
  const char *folder = getenv("MOOD_FOLDER");
  return folder && path && !strncmp(path, folder, strlen(folder)) && strstr(path, "skylift.db");
}

static int ours(int fd) {
  char link[64], path[4096];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t n = readlink(link, path, sizeof path - 1);
  if (n <= 0) return 0;
  path[n] = 0;
  return ours_path(path);
}

/* 0, or the error of an operation: `writes` is whether it changes anything. */
static int refused(int writes) {
  char mood[16];
  for (look(mood, sizeof mood); writes && !strcmp(mood, "stalled"); look(mood, sizeof mood)) usleep(20000);
  if (!strcmp(mood, "gone")) return EIO;
  if (writes && !strcmp(mood, "readonly")) return EROFS;
  if (writes && !strcmp(mood, "full")) return ENOSPC;
  return 0;
}

#define GUARD(fd, writes) \
  do { \
    int why = ours(fd) ? refused(writes) : 0; \
    if (why) { errno = why; return -1; } \
  } while (0)

ssize_t pwrite64(int fd, const void *p, size_t n, off64_t at) { REAL(pwrite64); GUARD(fd, 1); return real(fd, p, n, at); }
ssize_t pwrite(int fd, const void *p, size_t n, off_t at) { REAL(pwrite); GUARD(fd, 1); return real(fd, p, n, at); }
ssize_t pread64(int fd, void *p, size_t n, off64_t at) { REAL(pread64); GUARD(fd, 0); return real(fd, p, n, at); }
ssize_t pread(int fd, void *p, size_t n, off_t at) { REAL(pread); GUARD(fd, 0); return real(fd, p, n, at); }
int ftruncate64(int fd, off64_t n) { REAL(ftruncate64); GUARD(fd, 1); return real(fd, n); }
int ftruncate(int fd, off_t n) { REAL(ftruncate); GUARD(fd, 1); return real(fd, n); }
int fsync(int fd) { REAL(fsync); GUARD(fd, 1); return real(fd); }
int fdatasync(int fd) { REAL(fdatasync); GUARD(fd, 1); return real(fd); }

static int may_open(const char *path, int flags) {
  if (!ours_path(path)) return 1;
  int why = refused((flags & O_ACCMODE) != O_RDONLY);
  if (why) errno = why;
  return !why;
}

int open(const char *path, int flags, ...) {
  REAL(open);
  va_list rest; va_start(rest, flags); int mode = va_arg(rest, int); va_end(rest);
  return may_open(path, flags) ? real(path, flags, mode) : -1;
}
int open64(const char *path, int flags, ...) {
  REAL(open64);
  va_list rest; va_start(rest, flags); int mode = va_arg(rest, int); va_end(rest);
  return may_open(path, flags) ? real(path, flags, mode) : -1;
}
