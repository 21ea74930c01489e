"""A local S3: moto's server in this process, with credentials in the environment as AWS has them."""

from __future__ import annotations

from pathlib import Path

SECRET = "wJalrXUtnFEMI-not-a-real-key"


class S3:
    """An S3 at `url`; `environment` is what its clients need."""

    def __init__(self) -> None:
        from moto.server import ThreadedMotoServer

        self._server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        self._server.start()
        host, port = self._server.get_host_and_port()
        self.url = f"http://{host}:{port}"
        self.environment = {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def close(self) -> None:
        self._server.stop()

    def client(self):
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=self.environment["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=SECRET,
            region_name="us-east-1",
        )

    def upload(self, folder: Path, where: str) -> str:
        """The address of a copy of `folder`."""
        bucket, _, prefix = where.partition("/")
        client = self.client()
        client.create_bucket(Bucket=bucket)
        for file in sorted(folder.iterdir()):
            client.put_object(Bucket=bucket, Key=f"{prefix}/{file.name}", Body=file.read_bytes())
        return f"s3://{where}"
