"""The Pulumi components: one concept and one file each, joined by outputs only. They do not know Settings."""

from components.identity import Identity, IdentityArgs
from components.image import ImageArgs, RerankerImage
from components.model import ModelArgs, ModelVolume
from components.network import NetworkArgs, SharedNetwork
from components.ragflow import RagflowArgs, RagflowAttachment
from components.registration import RagflowRegistration, RegistrationArgs
from components.reranker import Reranker, RerankerArgs

__all__ = [
    "Identity",
    "IdentityArgs",
    "ImageArgs",
    "ModelArgs",
    "ModelVolume",
    "NetworkArgs",
    "RagflowArgs",
    "RagflowAttachment",
    "RagflowRegistration",
    "RegistrationArgs",
    "Reranker",
    "RerankerArgs",
    "RerankerImage",
    "SharedNetwork",
]
