"""`housecall container`: an image with its configuration, parameters and files, as one digest."""

from __future__ import annotations

import hashlib
from pathlib import Path

import click

from cli import connect, images, publish
from cli.command import example, output_option
from cli.messages import number, plain, words
from cli.output import Abridged, Column, brief, show_list, show_one
from cli.settings import Settings, pass_settings
from housecall.errors import Kind, Refusal
from housecall.v1 import registry_pb2
from housecall.v1 import statements_pb2 as pb
from housecall.v1.registry_pb2_grpc import RegistryStub

ROLES = pb.ContainerRole.DESCRIPTOR
COLUMNS: list[Column] = [
    ("id", "id"),
    ("name", "statement.name"),
    ("role", "statement.role"),
    ("owner", "origin.owner"),
    ("image", Abridged("statement.image_digest", brief)),
    ("digest", Abridged("statement.container_digest", brief)),
]
text_file = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group()
def command() -> None:
    """Register containers and look at them."""


@command.command(
    short_help="Register a container, pinned by its digest.",
    epilog=example(
        "housecall container register --config container_config.yaml --role model \\",
        "  --parameters parameters.yaml --additional-files weights.tar.gz",
    ),
)
@click.option("--config", type=text_file, required=True, help="Its container_config.yaml.")
@click.option("--role", type=click.Choice(words(ROLES)), required=True, help="What it is for.")
@click.option("--name", help="A name to recognise it by; default: the image's.")
@click.option("--parameters", type=text_file, help="Its parameters.yaml.")
@click.option("--additional-files", metavar="URL", help="Tarball: a URL, or a path here.")
@click.option("--additional-files-digest", metavar="DIGEST", help="sha256:... of the tarball.")
@click.option("--additional-files-file", type=text_file, help="Compute it from this copy.")
@click.option("--image-digest", metavar="DIGEST", help="sha256:... of the image.")
@output_option()
@pass_settings
def register(
    settings: Settings,
    config: Path,
    role: str,
    name: str | None,
    parameters: Path | None,
    additional_files: str | None,
    additional_files_digest: str | None,
    additional_files_file: Path | None,
    image_digest: str | None,
) -> None:
    """Register a container: the configuration is checked, the image pinned by its digest.

    The digest is taken from the configuration's image (name@sha256:...), else from --image-digest,
    else from the Docker engine of this machine.
    """
    from housecall import container_config, statement
    from housecall.container_tasks import Role

    configuration = config.read_text(encoding="utf-8")
    checked = container_config.parse(configuration, Role(role))
    text = parameters.read_text(encoding="utf-8") if parameters else ""
    if text:
        container_config.check_parameters(text)
    files = _additional_files(additional_files, additional_files_digest, additional_files_file)
    image = images.resolve(checked.image, checked.container_type, image_digest or "")
    predicate = pb.ContainerRegistered(
        name=name or images.plain_name(checked.image),
        role=pb.ContainerRole.ValueType(number(ROLES, role)),
        image_digest=image,
        configuration=configuration,
        parameters=text,
        additional_files=files,
        container_digest=statement.container_digest(
            image, configuration, text, files.digest if files else ""
        ),
    )
    subjects = {
        f"container {predicate.name}": predicate.container_digest,
        f"image {checked.image}": image,
    }
    with connect.signer(settings) as (end, identity):
        response = publish.publish(end, identity, predicate, subjects)
    publish.show_receipt(settings, response, f"registered container {{id}} ({predicate.name})")
    if role == "model":
        settings.next(f"housecall model register --container {response.id} --name NAME")
    else:
        settings.next(f"housecall benchmark create --{role} {response.id} ...")


@command.command(epilog=example("housecall container create --role preparation tissue-preparation"))
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--role", type=click.Choice(words(ROLES)), required=True, help="What it is for.")
@click.option("--name", help="Name of its image; default: the folder's.")
@output_option()
@pass_settings
def create(settings: Settings, folder: Path, role: str, name: str | None) -> None:
    """Write a container's first files, which work as they stand.

    They are a configuration, parameters, a Dockerfile and a small project in plain Python.
    """
    from cli import scaffold

    name = name or folder.absolute().name
    written = scaffold.create(role, folder, name)
    if settings.output == "json":
        show_one(settings, {"folder": str(folder), "role": role, "name": name, "files": written})
    else:
        click.echo(f"wrote {len(written)} files of a {role} to {folder}: {', '.join(written)}")
    config, parameters = folder / "container_config.yaml", folder / "parameters.yaml"
    settings.next(
        f"docker build -t {name}:1 {folder}",
        f"housecall container register --role {role} --config {config} --parameters {parameters}",
    )


@command.command(epilog=example("housecall container ls"))
@output_option(lists=True)
@pass_settings
def ls(settings: Settings) -> None:
    """List all containers."""
    with connect.reader(settings) as end:
        method = RegistryStub(end.channel).ListContainers
        found = end.pages(method, registry_pb2.ListContainersRequest(), "containers")
    show_list(settings, [plain(item) for item in found], COLUMNS, "no containers registered")


@command.command(epilog=example("housecall container show 1"))
@click.argument("container_id", metavar="ID", type=int)
@output_option()
@pass_settings
def show(settings: Settings, container_id: int) -> None:
    """Show a container with its configuration and parameters."""
    request = registry_pb2.GetContainerRequest(id=container_id)
    with connect.reader(settings) as end:
        found = end.call(RegistryStub(end.channel).GetContainer, request)
    show_one(settings, plain(found.container))


def _additional_files(
    where: str | None, digest: str | None, copy: Path | None
) -> pb.AdditionalFiles | None:
    """A path on this machine becomes a file URL, and gives its own digest."""
    if where is None:
        if digest or copy:
            raise click.UsageError("give --additional-files, too: where sites fetch the tarball")
        return None
    if "://" not in where:
        copy = copy or Path(where)
        where = Path(where).absolute().as_uri()
    found = _file_digest(copy) if copy else None
    if digest and found and digest != found:
        raise Refusal(
            Kind.INVALID,
            "ADDITIONAL_FILES_DIGEST",
            f"{copy}: expected {digest}, got {found}; give the digest of this very file",
        )
    if not (digest or found):
        raise click.UsageError("give --additional-files-digest or --additional-files-file, too")
    checked = images.check_digest(digest or found or "", "--additional-files-digest")
    return pb.AdditionalFiles(uri=where, digest=checked)


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
