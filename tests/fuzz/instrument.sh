#!/bin/sh
# Cargo starts this in place of rustc for the crates of this workspace alone
# (RUSTC_WORKSPACE_WRAPPER): these are what is fuzzed. All others, SQLite among
# them, are those that the other tests have built already.
#
# The flags are what libFuzzer wants, as a pass that stable rustc can be told to
# run, and the checks that a release build leaves out. A static program would
# crash in libFuzzer before it begins.
for word; do
    # Build scripts run on their own: they have no libFuzzer to link with.
    [ "$word" = build_script_build ] && exec "$@"
done
exec "$@" \
    -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares \
    -Cdebug-assertions \
    -Coverflow-checks \
    -Ctarget-feature=-crt-static \
    --cfg=fuzzing
