// SPDX-License-Identifier: MIT
// kim: Gemma 3 from the command line. Picks the subcommand; each is in a file of its name.
#include "common.h"

#include <errno.h>
#include <fcntl.h>
#include <langinfo.h>
#include <locale.h>
#include <string.h>
#include <unistd.h>

static const struct {
    const char *name;
    int (*run)(int argc, const char **argv);
    const char *purpose;
} commands[] = {
    { "chat", command_chat, "talk to a model, or have it answer once" },
    { "logits", command_logits, "greedy continuation with log-probabilities" },
    { "image", command_image, "what the model sees of a picture" },
    { "tokenize", command_tokenize, "text to token ids, and back" },
    { "inspect", command_inspect, "what is in a model file, and the memory it takes" },
    { "devices", command_devices, "the Vulkan devices of this machine, and which one is taken" },
    { "selftest", command_selftest, "check every operation on a device against plain C" },
    { "bench", command_bench, "measure the speed of a model, or of single operations" },
    { "pull", command_pull, "fetch a published model" },
};
enum { N_COMMANDS = sizeof commands / sizeof *commands };

static void print_usage(FILE *file)
{
    fputs("Gemma 3 on any GPU with a Vulkan driver.\n\nUsage: kim COMMAND [OPTION...]\n\n", file);
    for (int i = 0; i < N_COMMANDS; i++)
        fprintf(file, "  %-10s %s\n", commands[i].name, commands[i].purpose);
    fputs("\n`kim COMMAND --help` tells more; `kim --version` tells the version.\n\n"
          "Environment:\n"
          "  KIM_MODEL       the model where -m is not given\n"
          "  KIM_DEVICE      the device where --device is not given\n"
          "  XDG_CACHE_HOME  where compiled pipelines, fetched models and the history of chat are\n"
          "                  kept (else ~/.cache)\n"
          "  HF_TOKEN        your token at huggingface.co, for models that pull needs one for\n"
          "  NO_COLOR        when set, no colours on the terminal\n",
          file);
}

// A file opened later must not get the number of a closed stdin, stdout or stderr. The wrong
// direction makes the use of it fail, as it should.
static void reserve_standard_files(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF)
            (void)!open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY);
    }
}

static int run_command(int argc, const char **argv)
{
    for (int i = 0; i < N_COMMANDS; i++) {
        if (strcmp(argv[0], commands[i].name) == 0)
            return commands[i].run(argc, argv);
    }
    return fail_usage("there is no command \"%s\"; `kim help` lists them", argv[0]);
}

static int run(int argc, const char **argv)
{
    if (argc < 2) {
        print_usage(stderr);
        return STATUS_USAGE;
    }
    const char *first = argv[1];
    bool help = strcmp(first, "help") == 0;
    if (help && argc > 2)
        return run_command(2, (const char *[]){ argv[2], "--help", NULL });
    if (help || strcmp(first, "--help") == 0 || strcmp(first, "-h") == 0) {
        print_usage(stdout);
        return STATUS_OK;
    }
    if (strcmp(first, "--version") == 0) {
        puts("kim " KIM_VERSION);
        return STATUS_OK;
    }
    if (first[0] == '-')
        return fail_usage("there is no option %s before a command; `kim help` lists the commands",
                          first);
    return run_command(argc - 1, argv + 1);
}

int main(int argc, char **argv)
{
    reserve_standard_files();
    signal(SIGPIPE, SIG_IGN); // a closed pipe is seen as an error of writing
    // Only the characters' encoding: numbers keep their point. Text is UTF-8 whatever the locale.
    if (!setlocale(LC_CTYPE, "") || strcmp(nl_langinfo(CODESET), "UTF-8") != 0)
        setlocale(LC_CTYPE, "C.UTF-8");
    return output_finish(run(argc, (const char **)argv));
}
