#!/bin/sh
# Cargo starts this in place of rustc for the crates of this workspace alone
# (RUSTC_WORKSPACE_WRAPPER): these are what is fuzzed. All others, SQLite among
# them, are those that the other tests have built already.
#
# The flags are what libFuzzer wants, as a pass that stable rustc can be told to
# run, and the checks that a release build leaves out. The program is not static
# like the others: libFuzzer looks for libc's memcmp and would find nothing.
for word; do
    # Build scripts run on their own: they have no libFuzzer to link with.
    [ "$word" = build_script_build ] && exec "$@"
done
for word; do
    shift
    [ "$word" = -Ctarget-feature=+crt-static ] || set -- "$@" "$word"
done
exec "$@" \
    -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares \
    -Cdebug-assertions \
    -Coverflow-checks \
    --cfg=fuzzing
