//! Writes `seeds/<target>/made-…`: one real input of each sort.

use anyhow::Context;

fn main() -> anyhow::Result<()> {
    for target in culprit_fuzz::TARGETS {
        let dir = culprit_fuzz::seeds_of(target);
        std::fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        for entry in std::fs::read_dir(&dir)?.flatten() {
            if entry.file_name().to_string_lossy().starts_with("made-") {
                std::fs::remove_file(entry.path())?;
            }
        }
        for seed in (target.seeds)() {
            let path = dir.join(seed.file());
            std::fs::write(&path, &seed.bytes)
                .with_context(|| format!("writing {}", path.display()))?;
        }
    }
    Ok(())
}
