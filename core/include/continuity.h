/** @file
 * Continuity for programs that want to ask, in C: hands listening sockets, and any other
 * descriptor, from one run of a program to the next without losing a connection.
 *
 *     struct continuity_upgrader *upgrader = continuity_open(NULL);
 *     int sock = continuity_listen(upgrader, "127.0.0.1:8080", 128);
 *     while (!continuity_has_completed(upgrader)) {
 *       int client = accept(sock, NULL, NULL);
 *       ...
 *     }
 *
 * To restart the program, run it again. Linking this library interposes nothing: no call
 * of the program is intercepted. Works with every C and C++ standard there is, and from
 * any language that can call C. For C++ there is continuity/upgrader.h.
 *
 * Times are in the unit that their name ends with. Where a function says nothing else:
 *   - it returns -1 when it fails: then errno says which kind of failure, and
 *     continuity_error() is a sentence;
 *   - it may be called from any thread, and none from a signal handler;
 *   - it is for the process that called continuity_open(), not for what it forks: there it
 *     fails with ENOTSUP.
 *
 * A program that runs under the preload library as well is served by this one, if it
 * calls continuity_open() before its first bind().
 *
 * Since 0.1, like everything in here.
 */
#ifndef CONTINUITY_H
#define CONTINUITY_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/** What a function is to C++: none of these throws. */
#if defined(__cplusplus)
#define CONTINUITY_NOEXCEPT noexcept
extern "C" {
#else
#define CONTINUITY_NOEXCEPT
#endif
/** What a function is to the linker: one that the library offers. */
#define CONTINUITY_API __attribute__((visibility("default")))

/** A program's part in restarts: what it gets, and what it hands on. One per program. */
struct continuity_upgrader;

/** A number in struct continuity_options that is left to the environment. */
#define CONTINUITY_UNSET (-1)

/**
 * What may be chosen. Make it with continuity_options_init(), and set what is to differ.
 * What is set here comes before what the environment says (libcontinuity(7)), and that
 * before the default.
 */
struct continuity_options {
  size_t size;              /**< of the structure, as its user knows it */
  const char* name;         /**< CONTINUITY_NAME: who takes over from whom; NULL: unset */
  const char* directory;    /**< CONTINUITY_DIR: where they meet; NULL: unset */
  int64_t ready_timeout_ms; /**< a successor not ready by then is told to end */
  int64_t probation_ms;     /**< how long a successor must live to have succeeded */
  int64_t unclaimed_ms;     /**< how long addresses that it does not want are served */
  int64_t drain_timeout_ms; /**< how long connections may live here after that */
  int busy;                 /**< 0: fail while another restart is under way; 1: wait */
  int success_signal;       /**< sent to this process when its restart succeeded; 0: none */
  int log_level;            /**< 0: errors only, 1: warnings, 2: what happens, 3: all */
  int disabled;             /**< 1: nobody is asked and nothing handed on */
};

/**
 * Sets everything to "unset", and the size. Cannot fail.
 * @param options the caller's; what it holds before does not matter.
 */
CONTINUITY_API void continuity_options_init(struct continuity_options* options) CONTINUITY_NOEXCEPT;

/** How far the last restart of this process has come. */
enum continuity_state {
  CONTINUITY_SERVING = 0,     /**< nobody has begun to take over */
  CONTINUITY_STARTING = 1,    /**< a successor starts; this process serves */
  CONTINUITY_TAKEN_OVER = 2,  /**< a successor serves, and may yet fail */
  CONTINUITY_COMPLETED = 3,   /**< continuity_has_completed(): finish, and leave */
  CONTINUITY_ROLLED_BACK = 4, /**< it ended on probation; this process serves again */
  CONTINUITY_FAILED = 5       /**< it was not to be ready; this process has served all along */
};

/** Who took over, how long it took, and whether it survived. */
struct continuity_outcome {
  size_t size;         /**< of the structure, as its user knows it: to be set before a call */
  int state;           /**< an enum continuity_state */
  pid_t successor;     /**< who takes over or has tried to; 0: nobody yet */
  int64_t start_ns;    /**< from its claim until it was ready, or until now, or it failed */
  int64_t switch_ns;   /**< in which nobody accepted, because this process went deaf */
  int64_t lived_ns;    /**< from then until now, or its end, or that of its probation */
  uint64_t changes;    /**< of the state, so far: to see that there was one in between */
  pid_t predecessor;   /**< from whom this process took over; 0: from nobody */
  int64_t takeover_ns; /**< how long that took, from being ready to being the owner */
};

/**
 * Finds out who we are. Nobody is asked and no thread is started yet.
 * @param options NULL: what the environment says. Not needed after the call.
 * @return to be given to continuity_close(); NULL: no memory, or options of no size.
 *   Every function takes NULL and fails. Where nothing can be handed on, as without a
 *   place to meet, the answer is not NULL: continuity_get_listener() says why.
 */
CONTINUITY_API struct continuity_upgrader* continuity_open(const struct continuity_options* options)
    CONTINUITY_NOEXCEPT;

/**
 * Ends the thread of ours, if one was started: nobody can follow this process any more.
 * Descriptors that were registered or returned stay open, they are the program's; but for
 * continuity_event_descriptor(). No other call may be under way. In a forked process it frees
 * its copy, and nothing else changes.
 * @param upgrader NULL is allowed.
 */
CONTINUITY_API void continuity_close(struct continuity_upgrader* upgrader) CONTINUITY_NOEXCEPT;

/**
 * The socket of the running predecessor at an address.
 *
 * Until continuity_ready() it belongs to the predecessor as well: do not accept or receive
 * from it, do not change its options or its blocking mode. What is closed before that stays
 * the predecessor's. After continuity_ready() it is this process's own at once, for as long
 * as the predecessor serves what it was not asked for (CONTINUITY_UNCLAIMED). It is handed on
 * to the next run without being registered. May take up to 0.1 s, and longer while another
 * restart is under way.
 *
 * Where the predecessor has another TCP address in the way ("127.0.0.1:80" of "*:80", "*:80"
 * of "[::]:80", and back), this is a new socket that is bound beside it, and that begins to
 * listen in continuity_ready().
 * @param upgrader from continuity_open().
 * @param address "host:port", "[v6]:port", "*:port" (all of IPv4), "unix:/path",
 *   "unix:@name", each for a listening stream socket; "unix-seqpacket:/path" for one that
 *   keeps the bounds of messages; "udp:host:port" (with the same hosts) and "unix-dgram:/path"
 *   for one that receives datagrams (the last two kinds with "@name" as well). host is a
 *   number, names are not looked up. Whether "[::]" has IPv4 peers as well is as the
 *   predecessor has it.
 * @return a descriptor, close-on-exec, the caller's to close; -1: nobody hands one over.
 *   errno: ENOENT, nobody is there, and continuity_error() is empty; EADDRINUSE, it is held
 *   by somebody who does not hand it over now; EINVAL, that is no address; ENOTSUP, nothing
 *   can be handed over here; ESTALE, after continuity_ready(): the predecessor has withdrawn
 *   its offer, or does not answer; EALREADY, a successor has taken over from this process, or
 *   continuity_ready() has failed; of socket(2).
 */
CONTINUITY_API int continuity_get_listener(struct continuity_upgrader* upgrader,
                                           const char* address) CONTINUITY_NOEXCEPT;

/**
 * continuity_get_listener(), or else a new socket: made (with SO_REUSEADDR for TCP), bound,
 * listening unless it is for datagrams, and registered. A socket file at which nobody
 * listens any more is replaced.
 * @param upgrader from continuity_open().
 * @param address as for continuity_get_listener().
 * @param backlog as for listen(2). On one that was inherited it is set when this process
 *   becomes its owner.
 * @return a descriptor, close-on-exec, the caller's to close; -1 with errno of
 *   continuity_get_listener() (but ENOENT, ENOTSUP and EALREADY), of socket(2), bind(2) or
 *   listen(2).
 */
CONTINUITY_API int continuity_listen(struct continuity_upgrader* upgrader, const char* address,
                                     int backlog) CONTINUITY_NOEXCEPT;

/**
 * Makes a socket one that the next run of the program can get.
 * @param upgrader from continuity_open().
 * @param fd a listening socket, or one that receives datagrams: bound and not connected.
 *   It stays the caller's; one that is closed is not handed over any more.
 * @return 0; -1 with errno EINVAL, it is no such socket; ENOTSUP, nothing can be handed on.
 */
CONTINUITY_API int continuity_register_listener(struct continuity_upgrader* upgrader,
                                                int fd) CONTINUITY_NOEXCEPT;

/**
 * A descriptor that the running predecessor hands on under a name: a pipe to the process that
 * writes the log, a memfd with what is to be known. What it is, and how both runs share it, is
 * theirs to agree on: the predecessor has it still, and goes on using it. Handed on to the
 * next run without being registered. If nothing else is taken over, continuity_ready() takes
 * the place of a predecessor that has handed on but a name.
 * @param upgrader from continuity_open().
 * @param name 1 to 128 bytes; two programs of one CONTINUITY_NAME mean the same by it.
 * @return a descriptor, close-on-exec, the caller's to close; -1 with errno ENOENT: nobody
 *   hands on anything of that name; EINVAL and ENOTSUP as for continuity_get_listener();
 *   EALREADY, continuity_ready() was before.
 */
CONTINUITY_API int continuity_get_descriptor(struct continuity_upgrader* upgrader,
                                             const char* name) CONTINUITY_NOEXCEPT;

/**
 * Hands a descriptor on to the next run, under a name. A later one of the same name replaces
 * it. Only a successor that asks for it gets it.
 * @param upgrader from continuity_open().
 * @param name 1 to 128 bytes; not needed after the call.
 * @param fd any that is open. It stays the caller's; one that is closed is not handed on.
 * @return 0; -1 with errno EBADF; EINVAL, that is no name; ENOSPC, there are 128 already;
 *   ENOTSUP, nothing can be handed on.
 */
CONTINUITY_API int continuity_register_descriptor(struct continuity_upgrader* upgrader,
                                                  const char* name, int fd) CONTINUITY_NOEXCEPT;

/**
 * Says that this process is ready to serve: from now on it owns what it got, the
 * predecessor accepts no more, and a successor may ask. To call it again does nothing.
 * @param upgrader from continuity_open().
 * @return 0; -1 with errno ESTALE: the predecessor has withdrawn its offer, or does not
 *   answer. Then this process must not accept, and continuity_has_completed() is 1.
 */
CONTINUITY_API int continuity_ready(struct continuity_upgrader* upgrader) CONTINUITY_NOEXCEPT;

/**
 * Whether a successor has taken over and passed its probation: then finish what is in hand
 * and leave. The first call also says continuity_ready(). What the successor does not want
 * is still accepted here for unclaimed_ms after the take-over, and this is 0 until then.
 *
 * Between take-over and that, accept finds nothing: it sleeps, or says EAGAIN; afterwards it
 * says EINVAL, so that a thread that slept in it comes back to ask. If the successor ends on
 * probation, accept goes on as before. At the take-over a poll, epoll_wait or sleep that
 * another thread is just beginning may end with EINTR.
 *
 * Costs less than a system call, but for the first time.
 *
 * In a forked process it tells of the process that asks, and says nothing. Nobody keeps a
 * forked process from accepting, or wakes it from that: between take-over and completion it
 * accepts beside the successor, and it has to be told that it is to look again, by a signal
 * or a pipe of the program's.
 * @param upgrader from continuity_open().
 * @return 1 or 0; never fails.
 */
CONTINUITY_API int continuity_has_completed(struct continuity_upgrader* upgrader)
    CONTINUITY_NOEXCEPT;

/**
 * A descriptor for the program's own event loop: it becomes readable when a successor has
 * taken over, when continuity_has_completed() says 1, or when the successor has failed.
 * continuity_get_outcome() tells which, and makes it unreadable again. Do not read from it, and do
 * not close it.
 * @param upgrader from continuity_open().
 * @return the same number each time, valid until continuity_close(); -1: errno of eventfd(2).
 */
CONTINUITY_API int continuity_event_descriptor(struct continuity_upgrader* upgrader)
    CONTINUITY_NOEXCEPT;

/**
 * How the last restart of this process went, or goes.
 * @param upgrader from continuity_open().
 * @param outcome its size is set; as much as that is filled in.
 * @return 0; -1 with errno EINVAL: it has no size.
 */
CONTINUITY_API int continuity_get_outcome(struct continuity_upgrader* upgrader,
                                          struct continuity_outcome* outcome) CONTINUITY_NOEXCEPT;

/**
 * Starts a new run of this program, and waits until that has succeeded or failed: a restart
 * from inside. The program must go on serving meanwhile, in other threads, unless wait_ms
 * is 0. The new run is a child of this process as long as that lives; it gets the
 * environment and the standard descriptors, and no other. Whoever takes over counts, were it
 * a run that somebody else has started at the same time.
 * @param upgrader from continuity_open().
 * @param argv NULL: the command line of this process, and its program by the same path: a
 *   file that was put there meanwhile is what runs. Else another one, ended by NULL; argv[0]
 *   is looked up in PATH.
 * @param wait_ms how long to wait; -1: as long as it takes.
 * @return the new run's pid; it has succeeded, or the time is over: continuity_get_outcome()
 *   tells. -1 with errno ECHILD: it ended before it was ready, or on probation; ETIMEDOUT:
 *   it took nothing over in ready_timeout_ms, and is told to end; EBUSY: a restart is under
 *   way; EALREADY: one has succeeded; ENOTSUP: this process cannot be followed, for instance
 *   since it is not ready; of posix_spawn(3). In all these cases this process serves on.
 */
CONTINUITY_API pid_t continuity_upgrade(struct continuity_upgrader* upgrader,
                                        const char* const* argv,
                                        int64_t wait_ms) CONTINUITY_NOEXCEPT;

/**
 * Why the last call of this thread's that failed did, a sentence in English; empty if none
 * did, or if there is nothing to say. Cannot fail.
 * @return valid until this thread's next call of the library.
 */
CONTINUITY_API const char* continuity_error(void) CONTINUITY_NOEXCEPT;

/**
 * The library's version. Cannot fail.
 * @return "0.1.0", valid for ever.
 */
CONTINUITY_API const char* continuity_version(void) CONTINUITY_NOEXCEPT;

#if defined(__cplusplus)
}
#endif

#endif
