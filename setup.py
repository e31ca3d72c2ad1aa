"""What pyproject.toml cannot say."""

from setuptools import Distribution, setup


class WithData(Distribution):
    """An editable install asks for its files of data by this name, and finds none without it."""

    has_data = Distribution.has_data_files


setup(distclass=WithData)
