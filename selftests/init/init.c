// SPDX-License-Identifier: GPL-2.0-only
/*
 * The guest's pid 1: runs the selftests that the kernel command line names,
 * prints one KTAP stream, and powers off.
 *
 *	kmend.selftests=COLLECTION:NAME[,COLLECTION:NAME...]
 *	kmend.seconds=N		each program gets `-t N`: how long to put on load
 *	kmend.timeout=N		limit of a program in seconds, in place of its own
 *	kmend.modules=A.ko[,B.ko...]	files of /lib/modules to load first, in
 *				this order: a KUnit suite in one runs then
 *	kmend.symbols=A[,B...]	kernel symbols of which address and size are printed
 *				before the tests: a debugger outside needs them
 *	kmend.parked		that debugger parks CPUs: no task that wakes may have
 *				to wait for the CPU that it slept on
 *	printk.devkmsg=on	needed: the stream goes through the kernel log
 *
 * Words that begin with kmend. may stand in /kmend.words as well: what the
 * kernel has no room for is cut off its command line without a word.
 *
 * The programs are /kselftest/COLLECTION/NAME.  A program's limit is `timeout`
 * of /kselftest/COLLECTION/settings, or 45 seconds, plus kmend.seconds.
 *
 * The stream goes through /dev/kmsg, so that a line of it and a line of the
 * kernel log never mix on the console.  Each program becomes a subtest with
 * one case per result of its own, and a last one that init adds: that its exit
 * status is what its results say.  Cases that the program left out are filled
 * in as failed, so that the plan is always complete and no end of a program
 * is lost.  Only a crash of the guest leaves a plan incomplete.
 *
 * Built with tools/include/nolibc.
 */
#include <linux/reboot.h>

#include "kselftest.h"

#define MAX_TESTS	64
#define MAX_CASES	9999
#define TIMEOUT		45	/* seconds, kselftest's own default */
#define KILL_MS		5000	/* how long a killed program may take to go */
#define POLL_MS		20
#define LINE		768	/* a record of the log holds 992 bytes or more */
#define MAX_NOTES	2000	/* lines a program may print besides results */
#define MAX_SYMBOLS	64

enum result { NONE, OK, NOT_OK, SKIP };

struct test {
	char *name;		/* COLLECTION:NAME, as in the command line */
	char *program;		/* the part after the colon */
	int num;

	int plan;		/* 0: none yet */
	int done, failed, skipped;	/* cases */
	int notes;		/* other lines */
	const char *broken;	/* what is wrong with the output, or NULL */
	char *skip;		/* why nothing ran, of `1..0 # SKIP why` */
};

/* How a program ended */
struct ending {
	int exec_errno;		/* it could not be run */
	int timed_out;		/* the limit that it ran into, in seconds */
	int killed_by;		/* a signal */
	int status;
};

static int kmsg = -1;
/* The command line's words */
static char *tests_arg, *modules_arg, *symbols_arg;
static int seconds, timeout, parked;

/* A line for the log, put together piece by piece; what is too long is cut. */
static struct {
	char text[LINE + 64];
	int len;
} out;

static void put_char(char c)
{
	if (out.len < LINE)
		out.text[out.len++] = c;
}

static void put(const char *text)
{
	while (*text)
		put_char(*text++);
}

static void put_num(long num)
{
	char buf[24];

	i64toa_r(num, buf);
	put(buf);
}

/* Starts a line: as a message of user space, at a level that consoles show. */
static void begin(const char *text)
{
	out.len = 0;
	put("<13>");
	put(text);
}

static void end(void)
{
	out.text[out.len++] = '\n';
	if (write(kmsg, out.text, out.len) < 0 && kmsg != 1)
		write(1, out.text + 4, out.len - 4);
}

static __noreturn void power_off(void)
{
	reboot(LINUX_REBOOT_CMD_POWER_OFF);
	/* No way to power off: QEMU's -no-reboot ends the guest, too. */
	reboot(LINUX_REBOOT_CMD_RESTART);
	for (;;)
		sleep(1);
}

static __noreturn void give_up(const char *what, const char *why)
{
	begin("kmend-init: ");
	put(what);
	put(why);
	end();
	power_off();
}

static long long now_ms(void)
{
	struct timespec ts;

	syscall(__NR_clock_gettime, CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000LL + ts.tv_nsec / 1000000;
}

static int read_file(const char *name, char *buf, int size)
{
	int fd = open(name, O_RDONLY);
	int len = 0, n;

	if (fd < 0)
		return -1;
	while (len < size - 1 && (n = read(fd, buf + len, size - 1 - len)) > 0)
		len += n;
	close(fd);
	buf[len] = 0;
	return len;
}

static void write_file(const char *name, const char *text)
{
	int fd = open(name, O_WRONLY);

	if (fd < 0)
		return;
	write(fd, text, strlen(text));
	close(fd);
}

/* Returns what follows the prefix, or NULL. */
static char *after(char *text, const char *prefix)
{
	int len = strlen(prefix);

	return strncmp(text, prefix, len) ? NULL : text + len;
}

/* A decimal number, which ends at a blank or the end; -1 if it is none. */
static int number(const char *text, int max)
{
	int val = 0;

	if (*text < '0' || *text > '9')
		return -1;
	for (; *text >= '0' && *text <= '9'; text++) {
		val = val * 10 + *text - '0';
		if (val > max)
			return -1;
	}
	return *text && *text != ' ' && *text != '\n' ? -1 : val;
}

static void read_cmdline(void)
{
	static char cmdline[8192];
	int devkmsg = 0;
	char *word, *next, *arg;
	int len;

	len = read_file("/proc/cmdline", cmdline, sizeof(cmdline));
	if (len < 0)
		give_up("cannot read /proc/cmdline", "");
	read_file("/kmend.words", cmdline + len, sizeof(cmdline) - len);

	for (word = cmdline; *word; word = next) {
		for (next = word; *next && *next != ' ' && *next != '\n'; next++)
			;
		if (*next)
			*next++ = 0;

		arg = after(word, "kmend.selftests=");
		if (arg)
			tests_arg = arg;
		arg = after(word, "kmend.modules=");
		if (arg)
			modules_arg = arg;
		arg = after(word, "kmend.symbols=");
		if (arg)
			symbols_arg = arg;
		if (!strcmp(word, "kmend.parked"))
			parked = 1;
		arg = after(word, "kmend.seconds=");
		if (arg) {
			seconds = number(arg, 86400);
			if (seconds < 1)
				give_up("not a number of seconds: ", word);
		}
		arg = after(word, "kmend.timeout=");
		if (arg) {
			timeout = number(arg, 86400);
			if (timeout < 1)
				give_up("not a number of seconds: ", word);
		}
		if (!strcmp(word, "printk.devkmsg=on"))
			devkmsg = 1;
	}
	/* The kernel drops lines that come fast, unless told not to. */
	if (!devkmsg)
		give_up("printk.devkmsg=on is missing on the command line", "");
}

/*
 * What a program prints
 */

/* A character that neither console nor parser trips over */
static char clean(char c)
{
	if (c == '\t')
		return ' ';
	return (unsigned char)c < ' ' || c == 127 ? '?' : c;
}

/* Any line that is no result: a diagnostic, cut into as many as it takes. */
static void note(struct test *test, const char *text)
{
	int room = LINE - 8;

	if (++test->notes > MAX_NOTES)
		return;
	if (test->notes == MAX_NOTES)
		text = "# (more lines than this are not shown)";
	do {
		/* As `# Subtest:` begins a subtest, it must not stand there. */
		if (*text == '#' && !after((char *)text, "# Subtest:"))
			begin("    ");
		else
			begin("    # ");
		while (*text && out.len < room)
			put_char(clean(*text++));
		end();
	} while (*text);
}

/*
 * One case.  The parser takes no `#` in a name, no empty name, and a directive
 * only behind one: `ok 1 # SKIP why`, as ksft_test_result_skip() prints it, is
 * lost on it.
 */
static void case_line(struct test *test, enum result result, const char *name,
		      const char *directive)
{
	begin(result == NOT_OK ? "    not ok " : "    ok ");
	test->done++;
	if (result == NOT_OK)
		test->failed++;
	if (result == SKIP)
		test->skipped++;
	put_num(test->done);
	put(" ");
	if (*name) {
		for (; *name && out.len < LINE / 2; name++)
			put_char(*name == '#' ? '?' : clean(*name));
		if (*name)
			put("...");
	} else {
		put("case ");
		put_num(test->done);
	}
	if (result == SKIP || *directive)
		put(" # ");
	if (result == SKIP)
		put("SKIP ");
	for (; *directive; directive++)
		put_char(clean(*directive));
	end();
}

static void got_plan(struct test *test, char *line)
{
	char *text = after(line, "1..");
	char *skip = after(text, "0 # SKIP");
	int cases = number(text, MAX_CASES);

	if (test->plan || cases < 1) {
		note(test, line);
		if (test->plan)
			test->broken = "two plans";
		else if (skip)
			test->skip = strdup(*skip ? skip + 1 : "no reason");
		else
			test->broken = "bad plan";
		return;
	}
	test->plan = cases;
	/* One record: the parser takes no line of the kernel in between. */
	begin("    KTAP version 1\n    # Subtest: ");
	put(test->name);
	put("\n    1..");
	put_num(cases + 1);
	end();
}

/* Splits `NUMBER [-] NAME [# DIRECTIVE]`. */
static void split_result(char *text, char **name, char **directive)
{
	char *c;

	while (*text >= '0' && *text <= '9')
		text++;
	while (*text == ' ')
		text++;
	if (after(text, "- "))
		text += 2;
	*name = text;
	*directive = "";

	for (c = text; *c; c++) {
		if (*c == '#' && (c == text || c[-1] == ' ')) {
			*directive = c + 1;
			break;
		}
	}
	while (**directive == ' ')
		(*directive)++;
	while (c > text && c[-1] == ' ')
		c--;
	*c = 0;
}

static void got_result(struct test *test, enum result result, char *line,
		       char *text)
{
	char *name, *directive, *skip;
	int num = number(text, MAX_CASES);

	if (!test->plan || test->done == test->plan || num != test->done + 1) {
		note(test, line);
		if (num < 0)
			return;
		if (!test->plan)
			test->broken = "a result before the plan";
		else if (test->done == test->plan)
			test->broken = "more results than planned";
		else
			test->broken = "results out of order";
		return;
	}

	split_result(text, &name, &directive);
	skip = after(directive, "SKIP");
	if (!skip)
		skip = after(directive, "skip");
	if (!skip) {
		case_line(test, result, name, directive);
	} else if (result == OK) {
		while (*skip == ' ' || *skip == ':')
			skip++;
		case_line(test, SKIP, name, skip);
	} else {
		/* The parser would take it for a skip, TAP says it failed. */
		case_line(test, NOT_OK, name, "a failure, marked as skipped");
	}
}

static void got_line(struct test *test, char *line)
{
	if (after(line, "TAP version ") || after(line, "KTAP version "))
		return;
	if (after(line, "1.."))
		got_plan(test, line);
	else if (after(line, "ok "))
		got_result(test, OK, line, after(line, "ok "));
	else if (after(line, "not ok "))
		got_result(test, NOT_OK, line, after(line, "not ok "));
	else if (*line)
		note(test, line);
}

/*
 * Running a program
 */

/* Reads what there is; a line is handed on when it is whole. */
static int take_output(struct test *test, int fd)
{
	static char line[4096];
	static int len, overlong;
	char buf[4096];
	int n, i;

	n = fd < 0 ? 0 : read(fd, buf, sizeof(buf));
	for (i = 0; i < n; i++) {
		if (buf[i] != '\n' && len < (int)sizeof(line) - 1) {
			line[len++] = buf[i] ? buf[i] : '?';
			continue;
		}
		while (len && line[len - 1] == '\r')
			len--;
		line[len] = 0;
		/* The rest of a long line is no line of its own. */
		if (overlong)
			note(test, line);
		else
			got_line(test, line);
		overlong = buf[i] != '\n';
		len = 0;
		if (overlong)
			line[len++] = buf[i] ? buf[i] : '?';
	}
	if (n <= 0 && len) {
		line[len] = 0;
		note(test, line);
		len = 0;
	}
	if (n <= 0)
		overlong = 0;
	return n;
}

/* The limit of a program in seconds */
static int limit_of(const char *settings)
{
	static char buf[4096];
	int limit = TIMEOUT;
	char *line, *text;

	if (timeout)
		return timeout;
	if (read_file(settings, buf, sizeof(buf)) < 0)
		buf[0] = 0;
	for (line = buf; line; line = strchr(line, '\n')) {
		if (*line == '\n')
			line++;
		text = after(line, "timeout=");
		if (text && number(text, 86400) > 0)
			limit = number(text, 86400);
	}
	return limit + seconds;
}

static __noreturn void run_program(struct test *test, int out_fd, int exec_fd)
{
	char *argv[4] = { test->program };
	char *envp[3] = { "HOME=/", "PATH=/" };
	char secs[24];

	if (seconds) {
		i64toa_r(seconds, secs);
		argv[1] = "-t";
		argv[2] = secs;
	}
	setsid();
	dup2(open("/dev/null", O_RDONLY), 0);
	dup2(out_fd, 1);
	dup2(out_fd, 2);
	execve(test->program, argv, envp);
	write(exec_fd, &errno, sizeof(errno));
	exit(127);
}

/* Collects ended processes.  Returns whether the program is among them. */
static int reap(int pid, int *status)
{
	int st, one, found = 0;

	while ((one = waitpid(-1, &st, WNOHANG)) > 0) {
		if (one == pid) {
			*status = st;
			found = 1;
		}
	}
	return found;
}

static void watch(struct test *test, int pid, int fd, int limit,
		  struct ending *ending)
{
	long long end = now_ms() + limit * 1000LL;
	struct pollfd pfd = { .fd = fd, .events = POLLIN };
	int status = 0, ended = 0, n;

	while (!ended && now_ms() < end) {
		ended = reap(pid, &status);
		if (poll(&pfd, 1, ended ? 0 : POLL_MS) <= 0)
			continue;
		if (take_output(test, fd) <= 0 && !ended)
			usleep(POLL_MS * 1000);
	}
	/* What the program started and left behind ends with it. */
	kill(-pid, SIGKILL);
	ending->timed_out = ended ? 0 : limit;
	end = now_ms() + KILL_MS;
	while (!ended && now_ms() < end) {
		ended = reap(pid, &status);
		usleep(POLL_MS * 1000);
	}
	/* The pipe holds no more than this, whoever still writes to it. */
	for (n = 0; n < 256 && poll(&pfd, 1, 0) > 0; n++) {
		if (take_output(test, fd) <= 0)
			break;
	}
	take_output(test, -1);

	if (!ended)
		note(test, "the program could not be killed: it hangs in the kernel");
	else if (WIFSIGNALED(status))
		ending->killed_by = WTERMSIG(status);
	else
		ending->status = WEXITSTATUS(status);
}

/* Text, number and text in a buffer that stays valid until the next call */
static char *join(const char *text, long num, const char *more)
{
	static char buf[128];
	char *to = buf;

	while (*text)
		*to++ = *text++;
	to += i64toa_r(num, to);
	while (*more)
		*to++ = *more++;
	*to = 0;
	return buf;
}

/*
 * Judges how the program ended.  Returns the reason that goes with the result,
 * "" for none.  *agrees: is the exit status what the cases say?
 */
static const char *judge(struct test *test, struct ending *ending,
			 enum result *result, int *agrees)
{
	int status = ending->status;

	*result = NOT_OK;
	*agrees = 0;
	if (ending->exec_errno == ENOENT)
		return "no such program";
	if (ending->exec_errno)
		return join("cannot be run, errno ", ending->exec_errno, "");
	if (ending->timed_out)
		return join("TIMEOUT ", ending->timed_out, " seconds");
	if (ending->killed_by)
		return join("killed by signal ", ending->killed_by, "");

	if (status == KSFT_SKIP || (!status && test->skip)) {
		if (test->failed)
			return "exit=4 though a case failed";
		*result = SKIP;
		*agrees = 1;
		return test->skip ? test->skip : "exit=4";
	}
	if (test->broken)
		return test->broken;
	if (status) {
		*agrees = test->failed > 0;
		return join("exit=", status, "");
	}
	if (!test->plan)
		return "exit=0 without a plan";
	if (test->done < test->plan)
		return join("exit=0 after ", test->done,
			    " cases, with more planned");
	if (test->failed)
		return "exit=0 though a case failed";
	*agrees = 1;
	if (test->skipped == test->plan) {
		*result = SKIP;
		return "all cases were skipped";
	}
	*result = OK;
	return "";
}

static void finish(struct test *test, struct ending *ending)
{
	enum result result, status;
	const char *why;
	int agrees;

	why = judge(test, ending, &result, &agrees);
	if (test->plan) {
		status = !agrees ? NOT_OK : result == SKIP ? SKIP : OK;
		while (test->done < test->plan)
			case_line(test, result, "", why);
		case_line(test, status, "exit status", why);
	}
	begin(result == NOT_OK ? "not ok " : "ok ");
	put_num(test->num);
	put(" ");
	put(test->name);
	if (*why)
		put(result == SKIP ? " # SKIP " : " # ");
	for (; *why; why++)
		put_char(clean(*why));
	end();
}

static void run(struct test *test)
{
	struct ending ending = { 0 };
	char *colon = strchr(test->name, ':');
	int out_pipe[2], exec_pipe[2];
	int pid, limit, err;

	test->program = colon + 1;
	*colon = 0;
	err = chdir("/kselftest") || chdir(test->name) ? errno : 0;
	*colon = ':';
	if (err) {
		ending.exec_errno = err;
		finish(test, &ending);
		return;
	}
	limit = limit_of("settings");
	begin("# ");
	put(test->name);
	put(join(": limit ", limit, " seconds"));
	end();

	if (pipe2(out_pipe, O_CLOEXEC) || pipe2(exec_pipe, O_CLOEXEC))
		give_up("no pipe", "");
	pid = fork();
	if (pid < 0)
		give_up("no process", "");
	if (!pid)
		run_program(test, out_pipe[1], exec_pipe[1]);
	close(out_pipe[1]);
	close(exec_pipe[1]);

	/* Ends without a word when execve() succeeds. */
	if (read(exec_pipe[0], &err, sizeof(err)) == sizeof(err))
		ending.exec_errno = err;
	close(exec_pipe[0]);
	watch(test, pid, out_pipe[0], limit, &ending);
	close(out_pipe[0]);
	finish(test, &ending);
}

/* Cuts the list into its names.  Returns how many there are. */
static int split_tests(struct test *tests)
{
	char *name, *next, *c;
	int n = 0;

	for (name = tests_arg; name; name = next) {
		next = strchr(name, ',');
		if (next)
			*next++ = 0;
		c = strchr(name, ':');
		if (!c || c == name || !c[1] || strchr(c + 1, ':') ||
		    strchr(c, '/') || strchr(name, '#') || strchr(name, '.'))
			give_up("not COLLECTION:NAME: ", name);
		if (n == MAX_TESTS)
			give_up("too many selftests: ", name);
		tests[n].name = name;
		tests[n].num = n + 1;
		n++;
	}
	return n;
}

static void load_modules(void)
{
	char *name, *next;
	int fd;

	if (chdir("/lib/modules"))
		give_up("no /lib/modules in the initramfs", "");
	for (name = modules_arg; name; name = next) {
		next = strchr(name, ',');
		if (next)
			*next++ = 0;
		fd = open(name, O_RDONLY);
		if (fd < 0)
			give_up("no such module: ", name);
		if (syscall(__NR_finit_module, fd, "", 0))
			give_up(join("errno ", errno, " from module "), name);
		close(fd);
	}
}

/*
 * Kernel symbols
 */

struct symbol {
	const char *name;
	unsigned long addr, next;	/* next: the lowest address beyond */
};

static void put_hex(unsigned long num)
{
	char buf[24];

	u64toh_r(num, buf);
	put(buf);
}

/* Returns a byte of /proc/kallsyms, or -1 at its end. */
static int next_char(int fd)
{
	static char buf[65536];
	static int at, len;

	if (at == len) {
		at = 0;
		len = read(fd, buf, sizeof(buf));
		if (len <= 0) {
			len = 0;
			return -1;
		}
	}
	return buf[at++];
}

/* Reads the file once: the addresses, or those that come next. */
static void read_symbols(struct symbol *symbols, int n, int names)
{
	int fd = open("/proc/kallsyms", O_RDONLY | O_CLOEXEC);
	char line[512];
	int len = 0, c, i;

	if (fd < 0)
		give_up("cannot read /proc/kallsyms", "");
	while ((c = next_char(fd)) >= 0) {
		unsigned long addr;
		char *name;

		/* "ffffffff81000000 T _stext", and a tab and a module */
		if (c != '\n' && c != '\t') {
			if (len < (int)sizeof(line) - 1)
				line[len++] = c;
			continue;
		}
		line[len] = 0;
		while (c >= 0 && c != '\n')
			c = next_char(fd);
		len = 0;
		addr = strtoul(line, &name, 16);
		/* A module of riscv has local labels inside of functions. */
		if (strlen(name) < 4 || after(name + 3, ".L"))
			continue;
		for (i = 0; i < n; i++) {
			struct symbol *symbol = &symbols[i];

			if (names && !symbol->addr &&
			    !strcmp(name + 3, symbol->name))
				symbol->addr = addr;
			if (!names && addr > symbol->addr &&
			    (!symbol->next || addr < symbol->next))
				symbol->next = addr;
		}
	}
	close(fd);
}

static void print_symbols(void)
{
	static struct symbol symbols[MAX_SYMBOLS];
	char *name, *next;
	int i, n = 0;

	for (name = symbols_arg; name; name = next) {
		next = strchr(name, ',');
		if (next)
			*next++ = 0;
		if (n == MAX_SYMBOLS)
			give_up("too many symbols: ", name);
		symbols[n++].name = name;
	}
	read_symbols(symbols, n, 1);
	read_symbols(symbols, n, 0);
	for (i = 0; i < n; i++) {
		if (!symbols[i].addr)
			continue;
		begin("kmend-symbol: ");
		put_hex(symbols[i].addr);
		put(" ");
		put_hex(symbols[i].next - symbols[i].addr);
		put(" ");
		put(symbols[i].name);
		end();
	}
	begin("kmend-symbol: end");
	end();
}

/*
 * Lets a CPU queue the tasks that it wakes by itself.  Where CPUs share no
 * cache, they go to a list which only the CPU that they slept on works off.
 * A kernel without scheduler debugging has no such file: there it stays so.
 */
static void wake_anywhere(void)
{
	mount("debugfs", "/sys/kernel/debug", "debugfs", 0, NULL);
	write_file("/sys/kernel/debug/sched/features", "NO_TTWU_QUEUE");
	/* before v5.13 */
	write_file("/sys/kernel/debug/sched_features", "NO_TTWU_QUEUE");
}

int main(void)
{
	static struct test tests[MAX_TESTS];
	int i, n;

	mount("proc", "/proc", "proc", 0, NULL);
	mount("sysfs", "/sys", "sysfs", 0, NULL);
	mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
	mount("tmpfs", "/tmp", "tmpfs", 0, NULL);
	kmsg = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);
	if (kmsg < 0) {
		kmsg = 1;
		give_up("cannot open /dev/kmsg", "");
	}
	write_file("/proc/sys/kernel/panic_on_oops", "1");
	read_cmdline();
	if (!tests_arg && !modules_arg)
		give_up("no kmend.selftests= on the command line", "");
	if (modules_arg)
		load_modules();
	if (!tests_arg)
		power_off();
	n = split_tests(tests);
	if (parked)
		wake_anywhere();
	if (symbols_arg)
		print_symbols();

	begin("KTAP version 1\n1..");
	put_num(n);
	end();
	for (i = 0; i < n; i++)
		run(&tests[i]);
	power_off();
}
