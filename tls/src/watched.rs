use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use crate::files::{Contents, Files, TlsError};
use crate::material::Material;

/// Time between two looks at the files.
const EVERY: Duration = Duration::from_secs(5);

/// Makes a configuration of what the files say.
pub(crate) type Make<T> = fn(Material, &Files) -> Result<T, TlsError>;

/// A configuration that follows its files.
pub struct Watched<T> {
    files: Files,
    make: Make<T>,
    current: RwLock<Arc<T>>,
    state: Mutex<State>,
}

struct State {
    /// Of the contents in use.
    loaded: [u8; 32],
    /// What is wrong with the present contents.
    trouble: Option<Trouble>,
    counts: Counts,
}

struct Trouble {
    error: TlsError,
    told: bool,
}

/// How often the files changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Taken into use after the start.
    pub reloads: u64,
    /// Not taken into use, for they are wrong; each once.
    pub bad: u64,
}

/// What a look at the files came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// They are as they were.
    Same,
    /// They changed, and new connections use what is in them now.
    Loaded,
    /// They cannot be used; what was in use still is.
    Kept(TlsError),
}

impl<T> fmt::Debug for Watched<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched")
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

impl<T: Send + Sync + 'static> Watched<T> {
    /// Reads the files; at a start a certificate out of date is told and used.
    pub(crate) fn load(files: Files, make: Make<T>) -> Result<Self, TlsError> {
        let contents = Contents::read(&files)?;
        let material = Material::parse(&contents, &files)?;
        if let Some(why) = material.out_of_date() {
            let error = TlsError::new("--tls-cert", &files.cert, format!("the certificate {why}"));
            tracing::error!("{error}; peers will refuse it until a new one is in the file");
        }
        let made = make(material, &files)?;
        warn_of_open_key(&contents, &files);
        Ok(Self {
            make,
            current: RwLock::new(Arc::new(made)),
            state: Mutex::new(State {
                loaded: contents.digest(),
                trouble: None,
                counts: Counts::default(),
            }),
            files,
        })
    }

    /// What new connections use.
    #[must_use]
    pub fn current(&self) -> Arc<T> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// How often the files changed.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.state().counts
    }

    /// Looks at the files now. Blocks as long as reading them does.
    pub fn look(&self) -> Look {
        let mut state = self.state();
        match self.read(&state.loaded) {
            Ok(None) => {
                state.trouble = None;
                Look::Same
            }
            Ok(Some((digest, made))) => {
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(made);
                state.loaded = digest;
                state.trouble = None;
                state.counts.reloads += 1;
                tracing::info!(
                    cert = %self.files.cert.display(),
                    "new TLS files are in use for new connections"
                );
                Look::Loaded
            }
            Err(error) => {
                let again = state.trouble.take().filter(|before| before.error == error);
                // Told when it is so twice in a row: certificate and key are
                // often replaced one after the other.
                let told = match &again {
                    None => false,
                    Some(before) if before.told => true,
                    Some(_) => {
                        state.counts.bad += 1;
                        tracing::error!(
                            "the new TLS files are not used, those in use before still are: {error}"
                        );
                        true
                    }
                };
                state.trouble = Some(Trouble {
                    error: error.clone(),
                    told,
                });
                Look::Kept(error)
            }
        }
    }

    fn read(&self, loaded: &[u8; 32]) -> Result<Option<([u8; 32], T)>, TlsError> {
        let contents = Contents::read(&self.files)?;
        let digest = contents.digest();
        if digest == *loaded {
            return Ok(None);
        }
        let material = Material::parse(&contents, &self.files)?;
        if let Some(why) = material.out_of_date() {
            let what = format!("the certificate {why}");
            return Err(TlsError::new("--tls-cert", &self.files.cert, what));
        }
        let made = (self.make)(material, &self.files)?;
        warn_of_open_key(&contents, &self.files);
        Ok(Some((digest, made)))
    }

    /// Looks at the files every 5 s, until this is dropped. Needs a tokio
    /// runtime; file systems that hang hang a thread of their own.
    pub fn watch(self: &Arc<Self>) {
        let weak = Arc::downgrade(self);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(EVERY).await;
                let Some(watched) = weak.upgrade() else {
                    return;
                };
                // A look that panicked has said so, and the next may not.
                let _ = tokio::task::spawn_blocking(move || watched.look()).await;
            }
        });
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn warn_of_open_key(contents: &Contents, files: &Files) {
    if contents.key_is_open {
        tracing::warn!(
            "--tls-key {}: every user of this machine can read it; take that right away (chmod o-r)",
            files.key.display()
        );
    }
}
